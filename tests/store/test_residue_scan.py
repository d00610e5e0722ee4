"""What is looked for after an erasure."""

from __future__ import annotations

import json

from edgeagent.store.residue_scan import Probes


def test_probes_are_pieces_of_what_was_said_and_not_the_names_of_rows():
    probes = Probes()
    said = "Wilhelmina travels to the island with two dogs"
    name = "resp_4b857f1121f8562a08ae4dee"
    probes.add(json.dumps({"previous_response_id": name, "output": [{"text": said}]}))
    assert probes.all()
    assert all(piece.decode().lower() in said.lower() for piece in probes.all())
