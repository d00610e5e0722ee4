"""The board: what the firmware says about this machine."""

from __future__ import annotations

import msgspec

from edgeagent.device.system_files import SystemFiles

_DEVICE_TREES = ("/proc/device-tree", "/sys/firmware/devicetree/base")
_DMI = "/sys/class/dmi/id"
# Placeholders of firmware vendors.
_PLACEHOLDERS = frozenset(
    {"", "default string", "system product name", "system manufacturer", "to be filled by o.e.m."}
)


class Board(msgspec.Struct, frozen=True):
    """`model` and `compatible` are from the device tree (ARM), `vendor` and `product` from DMI (PC)."""

    model: str | None = None
    compatible: tuple[str, ...] = ()
    vendor: str | None = None
    product: str | None = None

    @property
    def label(self) -> str | None:
        """A name for people: the model, else vendor and product."""
        names = [name for name in (self.vendor, self.product) if name]
        return self.model or (" ".join(names) or None)

    @property
    def search_text(self) -> str:
        """The text that a profile's board rule searches, in lower case."""
        names = (self.model, *self.compatible, self.vendor, self.product)
        return "\n".join(name for name in names if name).lower()


def read_board(tree: SystemFiles) -> Board:
    """Device tree first, then DMI; a virtual machine or container may have neither."""
    base = next((base for base in _DEVICE_TREES if tree.exists(f"{base}/compatible")), None)
    board = Board(
        model=tree.text(f"{base}/model") if base else None,
        compatible=tuple(tree.lines(f"{base}/compatible")) if base else (),
        vendor=_dmi(tree, "sys_vendor") or _dmi(tree, "board_vendor"),
        product=_dmi(tree, "product_name") or _dmi(tree, "board_name"),
    )
    if board.label is None:
        tree.note("board unknown: no device tree and no DMI names")
    return board


def _dmi(tree: SystemFiles, name: str) -> str | None:
    text = tree.text(f"{_DMI}/{name}")
    return None if text is None or text.lower() in _PLACEHOLDERS else text
