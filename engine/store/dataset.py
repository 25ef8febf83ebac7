"""Canonical datasets on disk, and how one is compiled into a tape.

    <root>/<name>/dataset.json                            format, interval, source, settings, hash of every file
                  instruments.json                        metadata; may be edited by hand, the tape follows
                  bars/instrument=AAPL/part-0.parquet     ts (ns UTC, close of the bar), open, high, low, close, volume
                  actions.parquet                         optional: instrument, ts, kind, ratio, amount
                  quarantine.parquet                      optional: rows that were not imported, with the reason

Law 1: the content hash covers every data file; a file that changed after the import is noticed, not used.
Law 2: a tape is named by its content: data, chosen instruments, their metadata, layout of an event.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.errors import DataError
from engine.kernel import codes
from engine.store import merge, ticks
from engine.store.files import atomic_file, cache_dir, file_hash, progress, text_hash, write_error
from engine.store.instruments import InstrumentInfo, from_json, override, to_json
from engine.store.tape import Events, Tape, read_tape, schema_hash, write_tape

FORMAT = 1
GROUP = 1 << 18  # rows of a Parquet row group
KINDS = {"split": (codes.SPLIT, "ratio"), "dividend": (codes.DIVIDEND, "amount")}


def folder(name: str) -> str:
    """The hive directory of an instrument, relative to its dataset."""
    return f"bars/instrument={quote(name, safe=' ')}"


def content_hash(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash over the names and hashes of the data files."""
    return text_hash(*(f"{name} {files[name]['sha256']}" for name in sorted(files)))


def list_files(root: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every data file of a dataset directory, by relative name."""
    paths = [*sorted(p for kind in ("bars", *ticks.KINDS) for p in root.glob(f"{kind}/*/*.parquet")),
             *sorted(root.glob("actions.parquet"))]  # fmt: skip
    return {path.relative_to(root).as_posix(): {"size": path.stat().st_size, "sha256": file_hash(path)}
            for path in paths}  # fmt: skip


def write_manifest(root: Path, infos: Sequence[InstrumentInfo], about: Mapping[str, Any]) -> None:
    """Write dataset.json and instruments.json beside data files that are already there."""
    files = list_files(root)
    manifest = {"format": FORMAT, "kind": "bars", **about, "content_hash": content_hash(files), "files": files}
    (root / "instruments.json").write_text(to_json(infos))
    (root / "dataset.json").write_text(json.dumps(manifest, indent=1, default=str) + "\n")


def read_manifest(root: Path) -> tuple[dict[str, Any], tuple[InstrumentInfo, ...]]:
    """dataset.json and the metadata. Raises DataError for a missing or damaged file."""
    where = root / "dataset.json"
    try:
        manifest = json.loads(where.read_text())
        infos = from_json((root / "instruments.json").read_text(), str(root / "instruments.json"))
    except (OSError, ValueError) as error:
        raise DataError(f"{root}: not a readable dataset ({error}); import it again with overwrite=True.") from error
    known = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    if not known or not isinstance(manifest.get("files"), dict):
        raise DataError(f"{where}: not a dataset of format {FORMAT}; import it again with overwrite=True.")
    if len({info.name for info in infos}) != len(infos) or not infos:
        raise DataError(f"{root / 'instruments.json'}: instruments must be named, each once; restore the file.")
    return manifest, infos


def _verify(root: Path, manifest: Mapping[str, Any]) -> str:
    """The content hash, after a look at the files: by size and time if they were seen before, else by hash.

    Raises DataError for a file that is gone or is not what was imported.
    """
    files: dict[str, dict[str, Any]] = manifest["files"]
    cure = "import the dataset again with overwrite=True"
    seen: dict[str, list[int]] = {}
    for name, entry in files.items():
        try:
            stat = (root / name).stat()
        except OSError as error:
            raise DataError(f"{root / name}: a file of the dataset is missing ({error.strerror}); {cure}.") from error
        if stat.st_size != entry["size"]:
            raise DataError(f"{root / name}: {stat.st_size} bytes instead of {entry['size']}, "
                            f"it changed after the import; {cure}.")  # fmt: skip
        seen[name] = [stat.st_size, stat.st_mtime_ns]
    mark = cache_dir("tapes") / f"{text_hash(str(root.resolve()))[:32]}.seen.json"
    now = {"hash": manifest["content_hash"], "files": seen}
    try:
        before = json.loads(mark.read_text())
    except (OSError, ValueError):  # Never seen, or a damaged note: look at the bytes.
        before = None
    if before != now:
        for name, entry in files.items():
            if file_hash(root / name) != entry["sha256"]:
                raise DataError(f"{root / name}: its bytes changed after the import; {cure}.")
        if content_hash(files) != manifest["content_hash"]:
            raise DataError(f"{root / 'dataset.json'}: its content hash does not fit its list of files; {cure}.")
        with atomic_file(mark) as part:
            part.write_text(json.dumps(now))
    return str(manifest["content_hash"])


def open_dataset(root: Path, chosen: Sequence[str] | None, changes: Mapping[str, Any]) -> Tape:
    """The tape of a dataset directory, compiled at the first time and mapped from the cache afterwards."""
    from engine.store.opening import choose

    manifest, infos = read_manifest(root)
    name = str(manifest.get("name", root.name))
    names = choose([info.name for info in infos], chosen, f"dataset {name}")
    known = {info.name: info for info in infos}
    picked = tuple(override(known[one], changes) for one in names)
    kind = str(manifest.get("kind", "bars"))
    digest = text_hash(kind, schema_hash(), _verify(root, manifest), to_json(picked))
    path = cache_dir("tapes") / f"{digest}.tape"
    if path.is_file():
        try:
            return read_tape(path)
        except DataError:  # A cached tape that was cut or is of an older layout: build it again below.
            path.unlink(missing_ok=True)
    sources = manifest.get("sources") if kind == "ticks" else None
    compile_dataset(root, picked, path, digest, name, sources)
    return read_tape(path)


def compile_dataset(root: Path, infos: tuple[InstrumentInfo, ...], path: Path, digest: str, name: str,
                    sources: Mapping[str, int] | None = None) -> None:  # fmt: skip
    """Write the tape of these instruments to `path`, in pieces: memory does not grow with the data.

    `sources`: of a dataset of single events, folder -> number of its source; None for bars.
    Raises DataError for an unreadable Parquet file or a full disk.
    """
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".runs-", dir=path.parent))
    except OSError as error:
        raise write_error(path, error) from error
    try:
        if sources is None:
            pieces = merge.spill(_bar_runs(root, infos), scratch)
        else:
            pieces = ticks.merged(ticks.tick_runs(root, [info.name for info in infos], sources), scratch)
        with write_tape(path, infos, digest, name) as writer, progress(0, f"tape {name}", "events") as bar:
            for piece in pieces:
                writer.append(piece)
                bar.update(len(piece))
            if writer.count == 0:
                raise DataError(f"dataset {name}: no events for {', '.join(info.name for info in infos[:5])}.")
    finally:
        shutil.rmtree(scratch)


def _bar_runs(root: Path, infos: Sequence[InstrumentInfo]) -> list[Iterator[Events]]:
    actions = _actions(root)
    return [merge.with_actions(_bars(root, info.name, i), merge.action_events(actions.get(info.name, []), i))
            for i, info in enumerate(infos)]  # fmt: skip


def parts(root: Path, name: str) -> list[Path]:
    """The Parquet files of an instrument in their order. Raises DataError if there are none."""
    found = sorted((root / folder(name)).glob("part-*.parquet"), key=lambda p: (len(p.name), p.name))
    if not found:
        raise DataError(f"{root / folder(name)}: no Parquet files of instrument {name}; import the dataset again.")
    return found


def _bars(root: Path, name: str, instrument: int) -> Iterator[Events]:
    import polars as pl

    for path in parts(root, name):
        try:
            rows = pl.scan_parquet(path).select(pl.len()).collect().item()
            for at in range(0, rows, GROUP):
                piece = pl.scan_parquet(path).slice(at, GROUP).collect()
                columns = {c: piece[c].cast(pl.Int64 if c == "ts" else pl.Float64).to_numpy()
                           for c in ("ts", *merge.PRICES)}  # fmt: skip
                yield merge.bar_events(columns, instrument)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{path}: cannot be read, the Parquet file is damaged ({str(error).splitlines()[0]}); "
                            "import the dataset again with overwrite=True.") from error  # fmt: skip


def _actions(root: Path) -> dict[str, list[tuple[int, int, float]]]:
    """SPLIT and DIVIDEND rows (ts, kind, amount) by instrument."""
    path = root / "actions.parquet"
    found: dict[str, list[tuple[int, int, float]]] = {}
    if path.is_file():
        import polars as pl

        for row in pl.read_parquet(path).with_columns(pl.col("ts").cast(pl.Int64)).iter_rows(named=True):
            kind, field = KINDS[row["kind"]]
            found.setdefault(row["instrument"], []).append((row["ts"], kind, row[field]))
    return found
