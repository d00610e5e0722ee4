"""What `models install` takes beside an id: read without a network, and fetched from servers of our own."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeagent.catalog.install.installer import install_reference
from edgeagent.catalog.install.model_reference import (
    FileReference,
    FolderReference,
    HubFile,
    HubReference,
    UrlReference,
    chosen_file,
    read_reference,
)
from edgeagent.catalog.model_library import Library
from edgeagent.errors import InstallFailed
from tests.catalog.server import FileServer, serving
from tests.conftest import ROOT

MODEL = ROOT / "models" / "edge-assistant-s" / "edge-assistant-s.Q8_0.gguf"
REPO = "owner/some-model-GGUF"


@pytest.fixture(scope="module")
def data() -> bytes:
    return MODEL.read_bytes()


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "models", tmp_path / "shipped")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine's loopback address, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def https(certificate: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving({"/m.gguf": data}, str(certificate)) as server:
        yield server


@pytest.fixture
def hub(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    from huggingface_hub import constants

    with serving({}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        server.repository(
            REPO,
            {
                "README.md": b"#",
                "some-model-Q4_K_M.gguf": data,
                "some-model-Q8_0.gguf": data,
                "some-model-BF16-00001-of-00002.gguf": b"GGUF",
                "some-model-BF16-00002-of-00002.gguf": b"GGUF",
                "mmproj-Q8_0.gguf": b"GGUF",
            },
        )
        yield server


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("hf.co/o/r:Q4_K_M", HubReference("o/r", quant="Q4_K_M")),
        ("hf.co/o/r", HubReference("o/r")),
        ("hf.co/o/r/m-Q8_0.gguf", HubReference("o/r", file="m-Q8_0.gguf")),
        ("hf.co/o/r/sub/m.gguf", HubReference("o/r", file="sub/m.gguf")),
        ("hf://o/r:Q8_0", HubReference("o/r", quant="Q8_0")),
        ("huggingface.co/o/r", HubReference("o/r")),
        ("https://huggingface.co/o/r", HubReference("o/r")),
        ("https://hf.co/o/r:IQ4_XS", HubReference("o/r", quant="IQ4_XS")),
        ("https://huggingface.co/o/r/tree/main", HubReference("o/r")),
        ("https://huggingface.co/o/r/blob/main/m.gguf", HubReference("o/r", file="m.gguf")),
        (
            "https://huggingface.co/o/r/resolve/v1/m.gguf?download=true",
            HubReference("o/r", file="m.gguf", revision="v1"),
        ),
        (
            "https://example.org/a/m.gguf?x=1",
            UrlReference("https://example.org/a/m.gguf?x=1", "m.gguf"),
        ),
        ("http://127.0.0.1:8/m.gguf", UrlReference("http://127.0.0.1:8/m.gguf", "m.gguf")),
        ("m.gguf", FileReference(Path("m.gguf"))),
        ("smollm2-135m-instruct", None),
        ("owner/model", None),
    ],
)
def test_a_reference_is_told_from_an_id(text, reference):
    assert read_reference(text) == reference


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hf.co/only", "OWNER/REPO"),
        ("hf.co/", "OWNER/REPO"),
        ("hf.co/../../etc/passwd", "OWNER/REPO"),
        ("hf.co/o/r/README.md", "not a .gguf file"),
        ("http://example.org/m.gguf", "https://"),
        ("https://example.org/", "end with the name"),
        ("https://user:secret@example.org/m.gguf", "password"),
        ("ftp://example.org/m.gguf", "not a supported address"),
        ("s3://bucket/m.gguf", "hf.co/OWNER/REPO"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused_with_the_way_out(text, said):
    with pytest.raises(InstallFailed, match=said) as caught:
        read_reference(text)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("names", "reference", "found"),
    [
        (["m-Q8_0.gguf", "m-Q4_K_M.gguf"], HubReference("o/r"), "m-Q4_K_M.gguf"),
        (["m-Q8_0.gguf", "m-F16.gguf"], HubReference("o/r"), "m-Q8_0.gguf"),
        (["m.gguf"], HubReference("o/r"), "m.gguf"),
        (["m.q8_0.gguf", "m.q4_0.gguf"], HubReference("o/r", quant="Q8_0"), "m.q8_0.gguf"),
        (["a/m-Q8_0.gguf", "mmproj-Q8_0.gguf"], HubReference("o/r", quant="q8_0"), "a/m-Q8_0.gguf"),
        (["m-IQ4_XS.gguf", "m-Q4_K_S.gguf"], HubReference("o/r", quant="IQ4_XS"), "m-IQ4_XS.gguf"),
        (["m-Q8_0.gguf"], HubReference("o/r", file="m-Q8_0.gguf"), "m-Q8_0.gguf"),
    ],
)
def test_the_file_of_a_repository(names, reference, found):
    assert chosen_file(reference, [HubFile(name, 1) for name in names]).path == found


@pytest.mark.parametrize(
    ("names", "reference", "said"),
    [
        ([], HubReference("o/r"), "no .gguf file, only other"),
        (["model.safetensors"], HubReference("o/r"), "r-GGUF"),
        (["m-Q8_0.gguf"], HubReference("o/r", quant="Q4_K_M"), "m-Q8_0.gguf: write"),
        (["m-Q8_0.gguf"], HubReference("o/r", file="n.gguf"), "no file 'n.gguf'"),
        (["m-00001-of-00003.gguf"], HubReference("o/r"), "one of 3 parts"),
        (["a.gguf", "b.gguf"], HubReference("o/r"), "it has a.gguf, b.gguf"),
    ],
)
def test_a_repository_without_the_file_says_what_it_has(names, reference, said):
    with pytest.raises(InstallFailed, match=said):
        chosen_file(reference, [HubFile(name, 1) for name in names])


def test_a_quantization_of_a_repository_is_installed_with_the_digest_of_the_hub(
    hub: FileServer, library: Library, data: bytes
):
    steps: list[str] = []
    sizes: list[tuple[str, int]] = []
    model = install_reference(
        HubReference(REPO, quant="q8_0"), library,
        fits=lambda name, size: sizes.append((name, size)),
        progress=lambda stage, done, total: steps.append(stage),
    )  # fmt: skip
    assert (model.id, model.size_bytes) == ("some-model-q8_0", len(data))
    assert model.sha256 == hashlib.sha256(data).hexdigest()
    assert model.source == f"huggingface:{REPO}/some-model-Q8_0.gguf@main"
    assert sizes == [("some-model-Q8_0.gguf", len(data))]
    assert "fetch" in steps


def test_a_file_of_the_hub_that_is_not_what_it_lists_is_refused(hub: FileServer, library: Library):
    hub.files[f"/{REPO}/resolve/main/some-model-Q8_0.gguf"] = b"GGUF" + bytes(100)
    with pytest.raises(InstallFailed, match="bytes"):
        install_reference(HubReference(REPO, quant="Q8_0"), library)
    assert library.installed() == []


def test_a_repository_that_is_not_there_is_told_in_a_line(hub: FileServer, library: Library):
    with pytest.raises(InstallFailed, match="could not be fetched from Hugging Face") as caught:
        install_reference(HubReference("nobody/nothing"), library)
    assert "\n" not in caught.value.message


def test_an_https_address_is_installed_and_continued(
    https: FileServer, library: Library, data: bytes
):
    reference = UrlReference(f"{https.url}/m.gguf", "m.gguf")
    https.cut_after = 1_000_000
    with pytest.raises(InstallFailed, match="continues"):
        install_reference(reference, library)
    model = install_reference(reference, library, model_id="mine")
    assert (model.id, model.sha256) == ("mine", hashlib.sha256(data).hexdigest())
    again = install_reference(reference, library)
    assert again.id == "m"
    assert any(asked and asked.startswith("bytes=") for asked in https.ranges)


@pytest.mark.parametrize("form", ["X-Linked-Etag", "Repr-Digest", "Digest"])
def test_a_digest_that_the_server_states_must_be_that_of_the_file(
    https: FileServer, library: Library, form: str
):
    other = hashlib.sha256(b"other")
    coded = base64.b64encode(other.digest()).decode()
    stated = {"X-Linked-Etag": f'"{other.hexdigest()}"', "Repr-Digest": f"sha-256=:{coded}:"}
    del https.files["/m.gguf"]
    https.files["/n.gguf"] = MODEL.read_bytes()
    https.headers[form] = stated.get(form, f"SHA-256={coded}")
    https.linked = False
    with pytest.raises(InstallFailed, match=other.hexdigest()):
        install_reference(UrlReference(f"{https.url}/n.gguf", "n.gguf"), library)


def test_a_redirection_away_from_https_is_refused(https: FileServer, library: Library, data: bytes):
    with serving({"/m.gguf": data}) as plain:
        https.redirects["/away.gguf"] = f"{plain.url}/m.gguf"
        with pytest.raises(InstallFailed, match="not https"):
            install_reference(UrlReference(f"{https.url}/away.gguf", "away.gguf"), library)
        assert plain.ranges == []
    https.redirects["/moved.gguf"] = f"{https.url}/m.gguf"
    model = install_reference(UrlReference(f"{https.url}/moved.gguf", "moved.gguf"), library)
    assert model.id == "moved"


def test_a_server_without_head_is_asked_for_the_file_at_once(https: FileServer, library: Library):
    https.has_head = False
    assert install_reference(UrlReference(f"{https.url}/m.gguf", "m.gguf"), library).id == "m"


def test_what_is_too_large_is_refused_before_it_is_fetched(https: FileServer, library: Library):
    def fits(name: str, size_bytes: int) -> None:
        raise InstallFailed(f"{name} has {size_bytes} bytes: too large")

    with pytest.raises(InstallFailed, match="too large"):
        install_reference(UrlReference(f"{https.url}/m.gguf", "m.gguf"), library, fits=fits)
    assert https.ranges == []


@pytest.mark.parametrize(
    "reference", [UrlReference("https://example.org/m.gguf", "m.gguf"), HubReference("o/r")]
)
def test_offline_nothing_is_asked(library: Library, reference):
    with pytest.raises(InstallFailed, match="--online"):
        install_reference(reference, library, offline=True)


def test_a_folder_with_one_model_is_that_model(library: Library, tmp_path: Path):
    folder = tmp_path / "stick"
    folder.mkdir()
    shutil.copy(MODEL, folder / "Some Model.Q8_0.gguf")
    (folder / "README.md").write_text("#")
    assert install_reference(FolderReference(folder), library).id == "some-model.q8_0"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "no .gguf file"),
        (["a.gguf", "b.gguf"], "2 models, a.gguf, b.gguf"),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], "in 2 parts"),
        (["config.json", "model.safetensors"], "only BERT encoders"),
    ],
)
def test_a_folder_without_one_says_what_it_has(library: Library, tmp_path: Path, names, said):
    folder = tmp_path / "stick"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"GGUF")
    with pytest.raises(InstallFailed, match=said):
        install_reference(FolderReference(folder), library)


def test_a_published_encoder_in_a_folder_is_converted(library: Library, minilm_published: Path):
    model = install_reference(FolderReference(minilm_published), library, model_id="encoder")
    assert model.id == "encoder"
    assert model.size_bytes > 40_000_000
