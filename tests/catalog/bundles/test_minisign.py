"""Keys and signatures in minisign's format: the same bytes as the real tool's, and it verifies ours."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeagent.catalog.bundles import minisign
from edgeagent.catalog.bundles.reader import open_bundle
from edgeagent.catalog.bundles.signing import (
    PublicKey,
    TrustList,
    load_either_key,
    load_public_key,
    load_signing_key,
    load_trust,
    make_key_pair,
    trust,
)
from edgeagent.catalog.bundles.writer import minisig_of
from edgeagent.errors import InstallFailed, KeyUnusable, ModelNotFound
from tests.catalog.bundles.homes import Home
from tests.conftest import ROOT

# Made by minisign 0.11 for this test: -G -W, then -S -c "signature made by minisign" -t "made for a test".
MESSAGE = b"What edgeagent signs, minisign verifies.\n"
REAL_NUMBER, REAL_SEED = (
    "0d2cb25a86d9746b",
    "7f8b8464bb2810842e08c53a798ec1483a5ceb40378f6bdab3866cd3c5a73343",
)
REAL_PUBLIC = """\
untrusted comment: minisign public key 6B74D9865AB22C0D
RWQNLLJahtl0a3Ely0isp9JjugOA4Q/0zcMssU/FAJ6VmuG+bWt1lPLU
"""
REAL_SIGNATURE = """\
untrusted comment: signature made by minisign
RUQNLLJahtl0a7IMlzoZ5DOYW9fdYXzGa2ws8K8yXk8FaLb/Ek4s6OTJpTYt2z5ST5Dbz4wIZpV/VXpQMP1R1V3KUB8EXB3uqQ0=
trusted comment: made for a test
jUQ4gMUx2H1abpWMmkxcefh3Kc57d4jHrXCLaI+Fust9oZuH23j30W7z5qKqdf/DiRb50B4CZidCos0+3oiUAw==
"""

# A key, and a bundle signed with it, that edgeagent 0.1 made.
EARLIER_PUBLIC = (
    "edgeagent-ed25519 e1c00697a7529da7"
    " 24e24ff3e47d761a2ba9e2e8d8168cc68d9850d8ed036de0c892490303502f65\n"
)
EARLIER_BUNDLE = ROOT / "tests" / "data" / "bundle-0.1.eab"


@pytest.fixture(scope="module")
def home(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home.make(tmp_path_factory.mktemp("home"), stories)


@pytest.fixture
def tool() -> str:
    found = shutil.which("minisign")
    if found is None:
        pytest.skip("minisign is not installed (Debian: apt install minisign)")
    return found


def is_verified(tool: str, file: Path, public: Path | str, *, signature: Path | None = None) -> str:
    """What minisign says of a signature; the empty text where it refuses."""
    key = ["-p", str(public)] if isinstance(public, Path) else ["-P", public]
    beside = ["-x", str(signature)] if signature is not None else []
    done = subprocess.run(
        [tool, "-V", "-H", *key, *beside, "-m", str(file)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout if done.returncode == 0 else ""


def test_a_signature_is_byte_for_byte_that_of_the_real_tool() -> None:
    number = bytes.fromhex(REAL_NUMBER)
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(REAL_SEED))
    digest = minisign.digest()
    digest.update(MESSAGE)
    text = minisign.signature_text(
        key.sign, number, digest.digest(),
        comment="signature made by minisign", trusted="made for a test",
    )  # fmt: skip
    assert text == REAL_SIGNATURE
    raw = key.public_key().public_bytes_raw()
    comment = f"minisign public key {number[::-1].hex().upper()}"
    assert minisign.public_key_text(number, raw, comment) == REAL_PUBLIC
    assert minisign.parse_public_key(REAL_PUBLIC) == (number, raw)


def test_a_key_is_read_with_any_comment_and_line_ends_of_any_system(tmp_path: Path) -> None:
    _, public, key = make_key_pair(tmp_path, "mine")
    first, second = public.read_text().splitlines()
    assert first == f"untrusted comment: edgeagent bundle public key {key.id.upper()}"
    for text in (
        f"{first}\r\n{second}\r\n",
        f"untrusted comment: schlüssel\n{second}\n",
        f"untrusted comment: \n{second}",
    ):
        public.write_bytes(text.encode())
        assert load_public_key(public) == key


@pytest.mark.parametrize(
    "spoil",
    [
        lambda first, second: second,
        lambda first, second: f"{first}\n",
        lambda first, second: f"{first}\n{second}\n{second}\n",
        lambda first, second: f"{first}\n{second[:-4]}\n",
        lambda first, second: f"{first}\n{second[:-1]}=\n",
        lambda first, second: f"{first}\nRU{second[2:]}\n",
        lambda first, second: f"{first}\n {second}\n",
        lambda first, second: f"comment: x\n{second}\n",
        lambda first, second: REAL_SIGNATURE,
    ],
)
def test_what_is_no_public_key_is_refused(tmp_path: Path, spoil) -> None:
    _, public, key = make_key_pair(tmp_path, "mine")
    public.write_text(spoil(*key.text.splitlines()))
    with pytest.raises(KeyUnusable, match="is not a public key"):
        load_public_key(public)


def test_a_key_under_another_number_is_refused(tmp_path: Path) -> None:
    """The number is what people compare: it must be that of the key, and minisign's own is any."""
    _, public, key = make_key_pair(tmp_path, "mine")
    other = make_key_pair(tmp_path, "other")[2]
    public.write_text(minisign.public_key_text(other.number, key.raw, "mine"))
    with pytest.raises(KeyUnusable, match=f"has key {key.id} but says {other.id}"):
        load_public_key(public)
    public.write_text(REAL_PUBLIC)
    with pytest.raises(KeyUnusable, match="made by minisign"):
        trust(public, tmp_path / "trusted")
    changed = bytearray(base64.b64decode(key.text.splitlines()[1]))
    for place in range(2, len(changed)):
        changed[place] ^= 4
        text = base64.b64encode(bytes(changed)).decode()
        public.write_text(f"untrusted comment: x\n{text}\n")
        with pytest.raises(KeyUnusable, match="damaged or edited"):
            load_public_key(public)
        changed[place] ^= 4


def test_keys_and_bundles_of_an_earlier_release_are_still_read(tmp_path: Path) -> None:
    public = tmp_path / "old.pub"
    public.write_text(EARLIER_PUBLIC)
    key = load_public_key(public)
    assert key.id == "e1c00697a7529da7"
    (tmp_path / "trusted").mkdir()
    shutil.copy(public, tmp_path / "trusted" / f"{key.id}.pub")
    for trusted in (TrustList([key], "here"), load_trust(tmp_path / "trusted")):
        with open_bundle(EARLIER_BUNDLE, trusted) as bundle:
            bundle.check_parts()
            assert (bundle.key, bundle.manifest.name, bundle.manifest.version) == (key, "clinic", 7)
    # Trusted again from a new file, it is the same key; what was there is left alone.
    public.write_text(key.text)
    assert trust(public, tmp_path / "trusted") == key
    assert load_trust(tmp_path / "trusted").keys == {key.id: key}


def test_either_half_of_a_key_gives_its_public_text(tmp_path: Path) -> None:
    private, public, key = make_key_pair(tmp_path, "mine")
    assert load_either_key(private) == load_either_key(public) == key
    private.chmod(0o644)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        load_either_key(private)


def test_minisign_verifies_a_bundle_with_our_key_alone(
    tool: str, home: Home, tmp_path: Path
) -> None:
    bundle = home.bundle(tmp_path / "garden.eab")
    public = tmp_path / "home.pub"
    public.write_text(home.key.public.text)
    signature = minisig_of(bundle)
    assert signature.name == "garden.eab.minisig"
    said = is_verified(tool, bundle, public)
    assert "Trusted comment: edgeagent bundle garden version 1, made 20" in said
    assert is_verified(tool, bundle, home.key.public.text.splitlines()[1])
    stranger = tmp_path / "stranger.pub"
    stranger.write_text(make_key_pair(tmp_path, "stranger")[2].text)
    assert not is_verified(tool, bundle, stranger)
    good = signature.read_text()
    signature.write_text(good.replace("version 1", "version 2"))
    assert not is_verified(tool, bundle, public)
    signature.write_text(good)
    assert is_verified(tool, bundle, public)
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    assert not is_verified(tool, bundle, public)


def test_minisign_takes_the_key_of_an_earlier_release_in_its_new_form(
    tool: str, tmp_path: Path
) -> None:
    raw = bytes.fromhex(EARLIER_PUBLIC.split()[2])
    key, message = PublicKey(raw), tmp_path / "message"
    message.write_bytes(MESSAGE)
    signer = load_signing_key(make_key_pair(tmp_path, "mine")[0])
    digest = minisign.digest()
    digest.update(MESSAGE)
    beside = tmp_path / "message.minisig"
    beside.write_text(signer.minisig(digest.digest(), "made for a test"))
    assert is_verified(tool, message, tmp_path / "mine.pub", signature=beside)
    # Its own number is in the file, so that minisign says which key is wanted.
    (tmp_path / "old.pub").write_text(key.text)
    done = subprocess.run(
        [tool, "-V", "-p", str(tmp_path / "old.pub"), "-m", str(message)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert key.id.upper().lstrip("0") in done.stderr  # it prints the number without leading zeros
    assert signer.public.id.upper().lstrip("0") in done.stderr


def test_a_signature_that_is_there_is_not_overwritten(home: Home, tmp_path: Path) -> None:
    (tmp_path / "garden.eab.minisig").write_text("another's")
    with pytest.raises(InstallFailed, match=r"garden\.eab\.minisig exists"):
        home.bundle(tmp_path / "garden.eab")
    assert not (tmp_path / "garden.eab").exists()
    assert (tmp_path / "garden.eab.minisig").read_text() == "another's"


def test_a_bundle_that_cannot_be_made_leaves_no_signature(home: Home, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        home.bundle(tmp_path / "garden.eab", models=("absent",))
    assert not list(tmp_path.iterdir())
