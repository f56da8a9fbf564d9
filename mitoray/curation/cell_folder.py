"""The folder that embedded cells live in: their crops, table by table, and what the network makes of them."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import safetensors.torch
import torch
from numpy.typing import NDArray

from mitoray.curation.cells import CELLS, Classes, cells_of, class_names, codes_of, one_table, with_embeddings
from mitoray.curation.contrastive import Contrast, train_on
from mitoray.curation.embedding import Embedder, readable
from mitoray.errors import BadLabels
from mitoray.slide import redact
from mitoray.storage import Folder
from mitoray.training.augment import Augmentation
from mitoray.training.crops import crop_images, png, read_crop_table
from mitoray.training.patches import centred

CROPS_FOLDER: Final = "cells"
EMBEDDINGS_FOLDER: Final = "embeddings"
ENCODER_FILE: Final = "encoder.safetensors"
HISTORY_FILE: Final = "contrast.json"

_SKIPPED: Final = b"mitoray.skipped"
_LABELLED: Final = ("mitotic_figure", "imposter", "mined", "random")


@dataclass(frozen=True, eq=False)
class CellFolder:
    """Cells in a folder: `cells/*.parquet` (`CELLS`, mpp, image) and `embeddings/*.parquet` (`CELLS`, embedding)."""

    folder: Folder

    def keep_crops(
        self,
        tables: Sequence[str],
        embedder: Embedder,
        margin_px: int,
        storage_options: Mapping[str, Any] | None = None,
        done: Callable[[], object] = lambda: None,
    ) -> dict[str, str]:
        """Keep the crops of each table that can be read, where that is not done yet; why others cannot, by crop_id.

        Uncertain labels are no class and are left out. done: called after each table. Raises BadLabels for a table
        that cannot be read.
        """
        failed: dict[str, str] = {}
        side = embedder.patch_px + margin_px
        for uri in tables:
            name = _name(uri)
            if not self.folder.exists(f"{CROPS_FOLDER}/{name}"):
                crops = read_crop_table(uri, storage_options)
                crops = crops.filter(pc.is_in(crops["kind"], value_set=pa.array(_LABELLED)))
                kept, _, skipped = readable(crops, embedder.mpp, side, embedder.patch_px)
                table = cells_of(kept).append_column("mpp", kept["mpp"]).append_column("image", kept["image"])
                self.folder.write_table(
                    f"{CROPS_FOLDER}/{name}", table.replace_schema_metadata({_SKIPPED: json.dumps(skipped)})
                )
            failed |= json.loads((self._crops(name, ["cell_id"]).schema.metadata or {})[_SKIPPED])
            done()
        return failed

    def train(
        self,
        embedder: Embedder,
        classes: Classes,
        margin_px: int,
        how: Contrast,
        augmentation: Augmentation,
        done: Callable[[], object] = lambda: None,
    ) -> None:
        """Train the embedder on by contrast, in place, or take the weights that an earlier call left here."""
        if not how.epochs:
            return
        encoder = embedder.network.encoder
        if self.folder.exists(ENCODER_FILE):
            encoder.load_state_dict(safetensors.torch.load(self.folder.read_bytes(ENCODER_FILE)))
            return
        parts = [self._crops(name) for name in self._parts()]
        codes = self._codes(one_table([part.select(CELLS.names) for part in parts]), classes)
        images = [
            crop_images(_as_crops(p), embedder.mpp, embedder.patch_px + margin_px, embedder.patch_px) for p in parts
        ]
        side = min(some.shape[-1] for some in images if len(some))
        together = torch.cat([centred(some, side) for some in images if len(some)])
        history = train_on(embedder, together, codes, how, augmentation, done)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
        self.folder.write_json(HISTORY_FILE, history)
        self.folder.write_bytes(ENCODER_FILE, safetensors.torch.save(state))

    def embed(self, embedder: Embedder, done: Callable[[int], object] = lambda _: None) -> None:
        """Embed the cells, table by table, where that is not done yet. done: called with the number of cells."""
        for part in self._parts():
            name = f"{EMBEDDINGS_FOLDER}/{part}"
            crops = self._crops(part)
            if not self.folder.exists(name) and len(crops):
                images = crop_images(_as_crops(crops), embedder.mpp, embedder.patch_px, embedder.patch_px)
                self.folder.write_table(name, with_embeddings(crops.select(CELLS.names), embedder.embed(images)))
            done(len(crops))

    def cells(self) -> pa.Table:
        """All embedded cells: `CELLS` and the embedding. Raises BadLabels where there are none, or a cell twice."""
        names = self.folder.names(EMBEDDINGS_FOLDER, ".parquet")
        if not names:
            raise BadLabels(f"{self.folder.shown} holds no embedded cells. Embed some first.")
        return one_table([self.folder.read_table(name) for name in names])

    def count(self) -> int:
        """How many cells have crops here."""
        return sum(len(self._crops(name, ["cell_id"])) for name in self._parts())

    def images(
        self, mpp: float, side_px: int, ids: Sequence[str] | None = None
    ) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """cell_id and crop uint8 (side_px, side_px, 3) at `mpp` µm/px: of all cells in their order, or of these in any.

        White surrounds a crop that is smaller. One table of crops is in memory at a time.
        """
        wanted = None if ids is None else pa.array(ids, pa.string())
        for name in self._parts():
            table = self._crops(name)
            if wanted is not None:
                table = table.filter(pc.is_in(table["cell_id"], value_set=wanted))
            for row in range(len(table)):
                one = table.slice(row, 1)
                image = crop_images(_as_crops(one), mpp, side_px, 1)[0].permute(1, 2, 0).numpy()
                yield str(one["cell_id"][0].as_py()), _padded(image, side_px)

    def _parts(self) -> list[str]:
        return [name.rpartition("/")[2] for name in self.folder.names(CROPS_FOLDER, ".parquet")]

    def _crops(self, name: str, columns: list[str] | None = None) -> pa.Table:
        return self.folder.read_table(f"{CROPS_FOLDER}/{name}", columns)

    def _codes(self, cells: pa.Table, classes: Classes) -> NDArray[np.int64]:
        names = class_names(cells, classes)
        return codes_of(names, tuple(sorted(set(names))))


def crops_as_png(source: CellFolder, mpp: float, side_px: int) -> Callable[[pa.Table], Iterator[tuple[str, bytes]]]:
    """For `mitoray.curation.review_files.write_review`: the crops of a review set whose candidates are cells."""

    def of(review: pa.Table) -> Iterator[tuple[str, bytes]]:
        for cell_id, image in source.images(mpp, side_px, review["candidate_id"].to_pylist()):
            yield cell_id, png(image)

    return of


def _as_crops(table: pa.Table) -> pa.Table:
    return table.select(["crop_id", "image", "mpp"])


def _padded(image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    missing = side_px - image.shape[0]
    if not missing:
        return np.ascontiguousarray(image)
    around = (missing // 2, missing - missing // 2)
    return np.pad(image, (around, around, (0, 0)), constant_values=255)


def _name(uri: str) -> str:
    """The file of a table: the same in every run, whatever other tables are given, and whatever characters it has."""
    return f"{hashlib.sha256(redact(uri).encode('utf-8', 'surrogatepass')).hexdigest()[:20]}.parquet"
