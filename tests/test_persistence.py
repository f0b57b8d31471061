"""Models and interactions are the same after saving and loading. Damaged and foreign files are refused."""

import contextlib
import errno
import hashlib
import io
import json
import os
import pickle
import zipfile
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import alscore
from alscore import AlternatingLeastSquares, Interactions, NotFittedError, Recommender
from alscore._support.files import atomic_writer
from alscore.persistence import FormatError, load, save
from alscore.solvers import ConjugateGradient

N_USERS, N_ITEMS = 7, 9
TEXT = [f"naïve «{number}» 坂本" for number in range(N_USERS)]


def fitted(users=None, items=None, **params):
    rng = np.random.default_rng(5)
    plays = sparse.csr_array(rng.random((N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.4))
    model = AlternatingLeastSquares(factors=3, iterations=2, num_threads=1, random_state=0, **params)
    return Recommender(model).fit(Interactions(plays, users, items), show_progress=False)


def saved(obj):
    file = io.BytesIO()
    save(obj, file)
    return file.getvalue()


def rewritten(content, change, sign=True, compression=zipfile.ZIP_STORED):
    """Return the file after `change(members)`. If `sign`, its manifest has the digests of the changed members."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["manifest.json"] = json.loads(members["manifest.json"])
    change(members)
    manifest = members.pop("manifest.json", None)
    if sign:
        manifest["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    if manifest is not None:
        members["manifest.json"] = json.dumps(manifest).encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def npy(array, **kwargs):
    file = io.BytesIO()
    np.save(file, array, **kwargs)
    return file.getvalue()


@pytest.fixture(scope="module")
def recommender():
    return fitted(TEXT, [f"item {number}" for number in range(N_ITEMS)])


@pytest.fixture(scope="module")
def content(recommender):
    return saved(recommender)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "users",
    [
        None,
        TEXT,
        pd.Index(TEXT, dtype="string", name="listener"),
        pd.Index(TEXT, dtype=object),
        pd.CategoricalIndex(TEXT),
        np.arange(N_USERS, dtype=np.int16) - 3,
        pd.Index(np.arange(N_USERS), dtype="Int64"),
        np.arange(N_USERS) / 8,
        pd.date_range("2024-02-27", periods=N_USERS, tz="Europe/Paris"),
        pd.period_range("2024-02", periods=N_USERS, freq="M"),
        list(pd.date_range("2024-02-27", periods=N_USERS).date),
        [Decimal(number) / 8 for number in range(N_USERS)],
        [bytes([number]) for number in range(N_USERS)],
    ],
    ids=lambda users: "default" if users is None else type(users[0]).__name__,
)
def test_fitted_recommender_comes_back(tmp_path, users, dtype):
    before = fitted(users, dtype=dtype)
    path = tmp_path / "model.als"
    before.save(path)
    after = alscore.load(path)
    assert after.interactions.users.equals(before.interactions.users)
    assert after.interactions.items.equals(before.interactions.items)
    if before.interactions.users.dtype != object:  # pandas 3 finds narrower types for objects
        assert after.interactions.users.dtype == before.interactions.users.dtype
    assert after.model.user_factors.tobytes() == before.model.user_factors.tobytes()
    assert after.model.item_factors.tobytes() == before.model.item_factors.tobytes()
    assert after.model.user_factors.dtype == dtype
    matrix, expected = after.interactions.matrix, before.interactions.matrix
    assert (matrix.indptr.dtype, matrix.indices.dtype, matrix.dtype) == (np.int64, np.int32, np.float32)
    assert (matrix != expected).nnz == 0
    users, items = before.interactions.users, before.interactions.items
    for loaded, expected in (
        (after.recommend(users), before.recommend(users)),
        (after.similar_items(items), before.similar_items(items)),
    ):
        assert loaded.to_numpy(object).tolist() == expected.to_numpy(object).tolist()


def test_bare_model_comes_back(tmp_path):
    before = fitted(solver=ConjugateGradient(steps=4, tol=1e-3), alpha=np.float32(2.5)).model
    save(before, str(tmp_path / "model.als"))
    after = load(str(tmp_path / "model.als"))
    assert type(after) is AlternatingLeastSquares
    assert after.get_params() == before.get_params()
    assert after.user_factors.tobytes() == before.user_factors.tobytes()
    assert after.item_factors.tobytes() == before.item_factors.tobytes()


def test_unfitted_comes_back():
    before = AlternatingLeastSquares(factors=np.int64(17), solver="cg", tol=1e-4, random_state=3, warm_start=True)
    bare, within = load(io.BytesIO(saved(before))), load(io.BytesIO(saved(Recommender(before))))
    assert within.interactions is None
    for after in (bare, within.model):
        assert after.get_params() == before.get_params()
        assert after.user_factors is None
        assert after.item_factors is None


def test_model_saved_before_a_parameter_existed(content):
    older = rewritten(content, lambda members: members["manifest.json"]["params"].pop("warm_start"))
    assert load(io.BytesIO(older)).model.warm_start is False


def test_factors_that_cannot_be_used_are_not_saved():
    model = AlternatingLeastSquares()
    model.user_factors = float_factors(N_USERS)
    with pytest.raises(NotFittedError, match="no item_factors yet"):
        save(model, io.BytesIO())
    model.item_factors = float_factors(N_ITEMS, 4)
    with pytest.raises(ValueError, match="do not fit"):
        save(model, io.BytesIO())


def test_generator_as_seed_is_not_kept():
    before = AlternatingLeastSquares(random_state=np.random.default_rng(0))
    assert load(io.BytesIO(saved(before))).random_state is None


def test_equal_models_give_equal_bytes(content):
    assert saved(load(io.BytesIO(content))) == content


def test_file_object_need_not_be_seekable_for_writing(content, recommender):
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reader:
        with os.fdopen(write_end, "wb") as writer:  # a small model fits into the pipe's buffer
            save(recommender, writer)
        piped = reader.read()
    assert saved(load(io.BytesIO(piped))) == content


def test_only_solvers_with_a_name_are_saved():
    class Mine:
        def sweep(self, half_sweep, out):
            raise NotImplementedError

    file = io.BytesIO()
    with pytest.raises(TypeError, match=r"cannot save the solver .*Mine.*register it, or use set_params"):
        save(AlternatingLeastSquares(solver=Mine()), file)
    assert file.getvalue() == b""


@pytest.mark.parametrize("kind", [AlternatingLeastSquares, Recommender])
def test_a_subclass_may_save_by_the_function(tmp_path, kind):
    class Own(kind):
        def save(self, file):
            alscore.persistence.save(self, file)

    path = tmp_path / "own.alscore"
    Own().save(path)
    assert isinstance(load(path), kind)
    with pytest.raises(TypeError, match="not a Own"):
        Own.load(path)


def test_other_objects_are_not_saved(tmp_path):
    with pytest.raises(TypeError, match="a Recommender, an AlternatingLeastSquares or Interactions, not dict"):
        save({}, tmp_path / "model.als")
    with pytest.raises(TypeError, match="not object"):
        save(Recommender(object()), tmp_path / "model.als")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "labels",
    [
        [1, "one", *range(5, 12)],
        [("a", number) for number in range(N_ITEMS)],
        [("a", str(number)) for number in range(N_ITEMS)],
        [frozenset([number]) for number in range(N_ITEMS)],
        [complex(number) for number in range(N_ITEMS)],
        [2**70 + number for number in range(N_ITEMS)],
    ],
    ids=["mixed", "tuples", "pairs of text", "sets", "complex", "huge"],
)
def test_labels_that_arrow_cannot_hold(tmp_path, labels):
    index = np.empty(N_ITEMS, object)
    index[:] = labels
    recommender = fitted(items=pd.Index(index, tupleize_cols=False))
    with pytest.raises(TypeError, match=r"items have labels of type .* cannot hold; .* items\.astype\(str\)"):
        recommender.save(tmp_path / "model.als")
    assert not list(tmp_path.iterdir())


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch, recommender):
    path = tmp_path / "model.als"
    path.write_bytes(b"old")
    write_array = np.lib.format.write_array

    def disk_full(file, array, **kwargs):
        if array.dtype == np.int64:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_array(file, array, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array", disk_full)
        with pytest.raises(OSError, match="No space left"):
            recommender.save(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.als"]
    recommender.save(path)
    assert load(path).interactions.users.equals(recommender.interactions.users)
    assert os.listdir(tmp_path) == ["model.als"]


def test_interrupted_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.als"
    path.write_bytes(b"old")
    with contextlib.suppress(KeyboardInterrupt), atomic_writer(path) as file:
        file.write(b"half of the ne")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.als"]


def test_save_follows_links_and_the_umask(tmp_path, recommender):
    path, link = tmp_path / "model.als", tmp_path / "latest.als"
    link.symlink_to(path)
    umask = os.umask(0o027)
    try:
        recommender.save(link)
    finally:
        os.umask(umask)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640


def test_file_that_is_replaced_passes_its_permissions_on(tmp_path, recommender):
    path = tmp_path / "model.als"
    recommender.save(path)
    path.chmod(0o600)
    with atomic_writer(path) as file:
        assert os.stat(file.fileno()).st_mode & 0o777 == 0o600  # from the start: others cannot read it meanwhile
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_paths_that_cannot_be_written(tmp_path, recommender):
    for path in (str(tmp_path), os.devnull):
        with pytest.raises(FileExistsError, match="not a regular file") as caught:
            recommender.save(path)
        assert caught.value.filename == path
    with pytest.raises(FileNotFoundError) as caught:
        recommender.save(tmp_path / "no" / "model.als")
    assert caught.value.filename == str(tmp_path / "no" / "model.als")


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "model.als")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


def test_foreign_files(tmp_path):
    archive, arrays = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("readme.txt", "hello")
    np.savez(arrays, user_factors=np.ones((2, 2)))
    path = tmp_path / "model.als"
    for foreign in (b"", b"user\tartist\n", pickle.dumps(Bomb()), archive.getvalue(), arrays.getvalue()):
        path.write_bytes(foreign)
        with pytest.raises(FormatError, match=r"model\.als is not .* Interactions: (File is not a zip|it has no)"):
            load(path)


def update_manifest(**values):
    return lambda members: members["manifest.json"].update(values)


def update_params(**values):
    return lambda members: members["manifest.json"]["params"].update(values)


def replace(**arrays):
    return lambda members: members.update({f"{name}.npy": npy(array) for name, array in arrays.items()})


def remove(name):
    return lambda members: members.pop(name)


def edit(name, old, new):
    return lambda members: members.update({name: members[name].replace(old, new)})


def swap(one, other):
    return lambda members: members.update({one: members[other], other: members[one]})


def float_factors(rows, columns=3):
    return np.ones((rows, columns), np.float32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (update_manifest(format="pickle"), "does not say format 'alscore'"),
        (update_manifest(format_version=2, alscore_version="9.1"), "written by a newer alscore, 9.1; upgrade"),
        (update_manifest(format_version="1"), ""),
        (update_manifest(kind="Forest"), "unknown kind of model, 'Forest'"),
        (update_manifest(params=None), ""),
        (update_params(colour="red"), "colour"),
        (update_params(dtype="nonsense"), "nonsense"),
        (update_params(solver={"name": "magic"}), "solver 'magic' is not installed; install the package"),
        (update_params(solver={"name": "cg", "options": {"steps": -1}}), "steps"),
        (update_manifest(kind="AlternatingLeastSquares"), "incomplete set of members"),
        (remove("item_factors.npy"), "incomplete set of members: data.npy"),
        (remove("indices.npy"), "incomplete set of members"),
        (remove("users.arrow"), "incomplete set of members"),
        (swap("users.arrow", "items.arrow"), "users has 9 labels, but the matrix has 7 users"),
        (swap("user_factors.npy", "item_factors.npy"), "indptr"),
        (swap("users.arrow", "data.npy"), ""),
        (edit("users.arrow", "ï".encode(), b"\xff\xfe"), "UTF8"),
        (edit("data.npy", b"}", b"\0"), ""),
        (replace(user_factors=float_factors(N_USERS + 1)), "indptr"),
        (replace(item_factors=float_factors(N_ITEMS + 1)), "items has 9 labels, but the matrix has 10 items"),
        (replace(user_factors=float_factors(N_USERS, 4)), r"user_factors float32 \(7, 4\) and .* \(9, 3\) do not fit"),
        (replace(user_factors=np.ones(N_USERS, np.float32)), r"is not the array .* float32 \(7,\)"),
        (replace(user_factors=np.ones((N_USERS, 3), np.int32)), r"is not the array .* int32 \(7, 3\)"),
        (replace(item_factors=np.ones((N_ITEMS, 3))), r"item_factors float64 \(9, 3\) do not fit"),
        (replace(item_factors=np.full((N_ITEMS, 3), np.float32("inf"))), "item_factors must be finite, but row 0"),
        (replace(indptr=np.zeros(N_USERS, np.int64)), "indptr"),
        (replace(indptr=np.arange(N_USERS + 1, dtype=np.int32)), "indptr.npy is not the array"),
        (replace(indptr=np.arange(N_USERS + 1) * 2**40), "indptr"),
        (replace(indptr=-np.arange(N_USERS + 1)), "indptr"),
        (replace(indices=np.full(99, N_ITEMS, np.int32)), "outside of"),
        (replace(indices=np.full(99, -1, np.int32)), "outside of"),
        (replace(data=np.full(99, np.nan, np.float32)), "nan"),
        (replace(data=np.zeros(0, np.float32)), "stored elements"),
    ],
)
def test_inconsistent_files_with_right_checksums(content, change, reason):
    with pytest.raises(FormatError, match=f"is not a usable alscore model or Interactions: .*{reason}"):
        load(io.BytesIO(rewritten(content, change)))


def test_pickled_array_is_refused(content):
    pickled = npy(np.full((N_USERS, 3), Bomb()), allow_pickle=True)
    bad = rewritten(content, lambda members: members.update({"user_factors.npy": pickled}))
    with pytest.raises(FormatError, match=r"is not the array that was expected: object \(7, 3\)"):
        load(io.BytesIO(bad))


def test_array_that_claims_more_than_it_has_is_not_allocated(content):
    header, shape = io.BytesIO(), (2**40, 2**20)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    claim = header.getvalue() + bytes(4)
    bad = rewritten(content, lambda members: members.update({"user_factors.npy": claim}))
    with pytest.raises(FormatError, match=r"is not the array that was expected: float32 \(10995"):
        load(io.BytesIO(bad))


def test_checksums_are_compared(content):
    change = replace(user_factors=float_factors(N_USERS))
    with pytest.raises(FormatError, match=r"member user_factors\.npy is damaged"):
        load(io.BytesIO(rewritten(content, change, sign=False)))


def test_members_are_those_listed(content):
    with pytest.raises(FormatError, match=r"missing or not listed in its manifest\.json: data\.npy"):
        load(io.BytesIO(rewritten(content, remove("data.npy"), sign=False)))
    with pytest.raises(FormatError, match=r"missing or not listed in its manifest\.json: extra"):
        load(io.BytesIO(rewritten(content, lambda members: members.update(extra=b"?"), sign=False)))


def test_compressed_members_are_refused(content):
    with pytest.raises(FormatError, match=r"member user_factors\.npy is compressed"):
        load(io.BytesIO(rewritten(content, lambda members: None, compression=zipfile.ZIP_DEFLATED)))


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, os.strerror(errno.EIO))])
def test_errors_of_memory_and_disk_are_not_format_errors(content, monkeypatch, error):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() < len(content) // 2:
                raise error
            return super().read(size)

    with pytest.raises(type(error)) as caught:
        load(Broken(content))
    assert caught.value is error


def test_offset_to_before_the_start_of_the_file(content, tmp_path):
    """The system refuses such a seek in a file on disk, but not in memory."""
    damaged, end = bytearray(content), content.rindex(b"PK\5\6")
    offset = int.from_bytes(content[end + 16 : end + 20], "little")  # of the directory of members
    damaged[end + 16 : end + 20] = (2 * offset).to_bytes(4, "little")
    (tmp_path / "model.als").write_bytes(damaged)
    with pytest.raises(FormatError, match=r"model\.als is not a usable alscore model"):
        load(tmp_path / "model.als")


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0), bits=st.integers(1, 255))
def test_any_flipped_byte_is_noticed_or_harmless(content, position, bits):
    damaged = bytearray(content)
    damaged[position % len(content)] ^= bits
    try:
        model = load(io.BytesIO(damaged))
    except FormatError:
        return
    assert saved(model) == content


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0))
def test_any_truncation_is_noticed(content, length):
    with pytest.raises(FormatError):
        load(io.BytesIO(content[: length % len(content)]))


# ---- Interactions, read or mapped

MAPPED = pytest.mark.parametrize("mmap", [True, False])


def plays(users=None, items=None, timestamps=True):
    rng = np.random.default_rng(5)
    matrix = sparse.csr_array(rng.random((N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.4))
    return Interactions(matrix, users, items, timestamps=np.arange(matrix.nnz) - 2**40 if timestamps else None)


def assert_same(after, before):
    assert type(after) is Interactions
    for name in ("users", "items"):
        assert getattr(after, name).equals(getattr(before, name))
    for name in ("indptr", "indices", "data"):
        loaded, expected = getattr(after.matrix, name), getattr(before.matrix, name)
        assert (loaded.dtype, loaded.tobytes()) == (expected.dtype, expected.tobytes())
    assert after.matrix.shape == before.matrix.shape
    assert (after.timestamps is None) == (before.timestamps is None)
    if before.timestamps is not None:
        assert (after.timestamps.dtype, after.timestamps.tobytes()) == (np.int64, before.timestamps.tobytes())
    assert after.report is None


def assert_sound(interactions):
    """Assert what must hold for any file that opens, whatever its damage."""
    matrix = interactions.matrix
    assert matrix.indptr[0] == 0
    assert (np.diff(matrix.indptr) >= 0).all()
    assert matrix.indptr[-1] == matrix.indices.size == matrix.data.size
    assert ((matrix.indices >= 0) & (matrix.indices < matrix.shape[1])).all()
    assert np.isfinite(matrix.data).all()
    assert matrix.shape == (len(interactions.users), len(interactions.items))
    assert interactions.users.is_unique
    assert interactions.timestamps is None or interactions.timestamps.shape == matrix.data.shape


def members_of(content):
    """Return offset and bytes of each member, by name, read according to the specification of zip."""
    end = content.rindex(b"PK\5\6")
    at, members = int.from_bytes(content[end + 16 : end + 20], "little"), {}
    while content[at : at + 4] == b"PK\1\2":
        size, name, extra = (
            int.from_bytes(content[at + i : at + i + n], "little") for i, n in ((20, 4), (28, 2), (30, 2))
        )
        start = int.from_bytes(content[at + 42 : at + 46], "little")
        start += 30 + sum(int.from_bytes(content[start + i : start + i + 2], "little") for i in (26, 28))
        members[content[at + 46 : at + 46 + name].decode()] = start, content[start : start + size]
        at += 46 + name + extra
    return members


@MAPPED
@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize(
    "users",
    [
        None,
        TEXT,
        TEXT[::-1],
        pd.Index(TEXT, dtype="string", name="listener"),
        pd.CategoricalIndex(TEXT),
        pd.date_range("2024-02-27", periods=N_USERS, tz="Europe/Paris"),
        [bytes([number]) for number in range(N_USERS)],
    ],
    ids=lambda users: "default" if users is None else type(users[0]).__name__,
)
def test_interactions_come_back(tmp_path, users, timestamps, mmap):
    before = plays(users, timestamps=timestamps)
    before.save(tmp_path / "plays.als")
    assert_same(alscore.load(tmp_path / "plays.als", mmap=mmap), before)
    assert_same(Interactions.load(str(tmp_path / "plays.als"), mmap=mmap), before)
    assert_same(load(io.BytesIO(saved(before)), mmap=mmap), before)
    assert saved(load(tmp_path / "plays.als", mmap=mmap)) == saved(before)


@MAPPED
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 3)])
def test_interactions_without_entries_come_back(tmp_path, shape, mmap):
    for timestamps in (None, np.zeros(0, np.int64)):
        before = Interactions(sparse.csr_array(shape), timestamps=timestamps)
        before.save(tmp_path / "plays.als")
        assert_same(load(tmp_path / "plays.als", mmap=mmap), before)


def test_members(content):
    """A file without timestamps has the same members as before timestamps existed."""
    matrix, labels = {"indptr.npy", "indices.npy", "data.npy"}, {"users.arrow", "items.arrow"}
    factors = {"user_factors.npy", "item_factors.npy"}
    stamped = Recommender(fitted().model, plays())
    assert set(members_of(content)) == {*factors, *matrix, *labels, "manifest.json"}
    assert set(members_of(saved(stamped))) == {*factors, *matrix, *labels, "timestamps.npy", "manifest.json"}
    assert set(members_of(saved(plays()))) == {*matrix, *labels, "timestamps.npy", "manifest.json"}
    assert set(members_of(saved(plays(timestamps=False)))) == {*matrix, *labels, "manifest.json"}


def test_arrays_are_aligned(content):
    for file in (content, saved(plays()), saved(plays(["u" * length for length in range(1, N_USERS + 1)]))):
        for name, (start, data) in members_of(file).items():
            if name.endswith(".npy"):
                array = np.load(io.BytesIO(data))
                assert data.endswith(array.tobytes())
                assert (start + len(data) - array.nbytes) % 64 == 0
            elif name.endswith(".arrow"):
                assert start % 64 == 0


def test_a_recommender_keeps_timestamps():
    model = AlternatingLeastSquares(factors=2, iterations=1, num_threads=1, random_state=0)
    before = Recommender(model).fit(plays(TEXT), show_progress=False)
    assert_same(load(io.BytesIO(saved(before))).interactions, before.interactions)


def test_mapped_arrays_stay_in_the_file(tmp_path):
    path = tmp_path / "plays.als"
    before = plays(TEXT)
    before.save(path)
    mapped, read = load(path), load(path, mmap=False)
    for part in ("indptr", "indices", "data"):
        assert not getattr(mapped.matrix, part).flags.owndata
        assert not getattr(mapped.matrix, part).flags.writeable
        assert getattr(read.matrix, part).flags.writeable
    with open("/proc/self/maps") as maps:
        assert str(path) in maps.read()
    fits = [
        Recommender(AlternatingLeastSquares(factors=2, iterations=2, num_threads=1, random_state=0))
        .fit(interactions, show_progress=False)
        .recommend(TEXT)
        for interactions in (before, mapped)
    ]
    pd.testing.assert_frame_equal(*fits)
    assert_same(mapped[:3].add(mapped[3:]), before)

    # Saving replaces the file: the mapped file stays.
    Interactions(-before.matrix, before.users, before.items).save(path)
    path.unlink()
    assert_same(mapped, before)


def test_files_that_are_not_aligned_are_mapped_too(tmp_path):
    """Another program has packed them again, or they were written before arrays were aligned."""
    before, path = plays(TEXT), tmp_path / "plays.als"
    for padding in range(8):
        path.write_bytes(rewritten(saved(before), lambda members: None))
        path.write_bytes(bytes(padding) + path.read_bytes())  # zip files may have anything before them
        mapped = load(path)
        assert_same(mapped, before)
        assert mapped.matrix.indptr.flags.aligned
        assert mapped.matrix.indices.flags.aligned
        assert mapped.timestamps.flags.aligned


def test_a_model_is_not_loaded_as_interactions(tmp_path, recommender):
    recommender.save(tmp_path / "model.als")
    with pytest.raises(FormatError, match=r"model\.als holds a model, Recommender; read it with alscore\.load"):
        Interactions.load(tmp_path / "model.als")


def test_checksums_are_compared_when_interactions_are_read(tmp_path):
    change = replace(data=np.full(plays().nnz, 5, np.float32))
    (tmp_path / "plays.als").write_bytes(rewritten(saved(plays()), change, sign=False))
    with pytest.raises(FormatError, match=r"member data\.npy is damaged"):
        load(tmp_path / "plays.als", mmap=False)
    assert set(load(tmp_path / "plays.als").matrix.data) == {5}


NNZ = plays().nnz


@MAPPED
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (update_manifest(format_version=2, alscore_version="9.1"), "written by a newer alscore, 9.1; upgrade"),
        (update_manifest(kind=["Interactions"]), ""),
        (update_manifest(kind="AlternatingLeastSquares"), "incomplete set of members"),
        (remove("indices.npy"), "incomplete set of members"),
        (remove("users.arrow"), "incomplete set of members"),
        (replace(user_factors=float_factors(N_USERS)), "incomplete set of members"),
        (swap("users.arrow", "items.arrow"), "indptr must start with 0 and have 10 elements"),
        (swap("users.arrow", "data.npy"), ""),
        (edit("users.arrow", "ï".encode(), b"\xff\xfe"), "UTF8"),
        (edit("users.arrow", "«1»".encode(), "«0»".encode()), "users: label .* at position 1 is not unique"),
        (edit("data.npy", b"}", b"\0"), ""),
        (edit("data.npy", b"<f4", b">f4"), "data.npy is not the array that was expected"),
        (replace(indptr=np.arange(N_USERS + 1, dtype=np.int32)), "indptr.npy is not the array"),
        (replace(indptr=np.arange(N_USERS + 1) * 2**40), "indptr points past the"),
        (replace(indptr=-np.arange(N_USERS + 1)), "indptr decreases at row 0"),
        (replace(indptr=np.arange(N_USERS + 2)), "indptr must start with 0 and have 8 elements"),
        (replace(indices=np.full(NNZ, N_ITEMS, np.int32)), "outside of"),
        (replace(indices=np.full(NNZ, -1, np.int32)), "outside of"),
        (replace(indices=np.zeros(NNZ, np.int32)), "must be in canonical form"),
        (replace(data=np.full(NNZ, np.nan, np.float32)), "nan"),
        (replace(data=np.zeros(NNZ, np.float32)), "must be in canonical form"),
        (replace(data=np.zeros(0, np.float32)), "stored elements"),
        (replace(timestamps=np.zeros(NNZ - 1, np.int64)), "timestamps has shape"),
        (replace(timestamps=np.zeros(NNZ)), "timestamps.npy is not the array that was expected: float64"),
        (replace(timestamps=np.zeros((NNZ, 1), np.int64)), "timestamps.npy is not the array that was expected: int64"),
    ],
)
def test_inconsistent_interactions_with_right_checksums(tmp_path, change, reason, mmap):
    (tmp_path / "plays.als").write_bytes(rewritten(saved(plays(TEXT)), change))
    with pytest.raises(FormatError, match=rf"plays\.als is not a usable alscore model or Interactions: .*{reason}"):
        load(tmp_path / "plays.als", mmap=mmap)


@MAPPED
def test_array_that_claims_more_than_it_has_is_not_mapped(tmp_path, mmap):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    claim = header.getvalue() + bytes(4)
    bad = rewritten(saved(plays()), lambda members: members.update({"data.npy": claim}))
    (tmp_path / "plays.als").write_bytes(bad)
    with pytest.raises(FormatError, match=r"is not the array that was expected: float32 \(1099511627776,\)"):
        load(tmp_path / "plays.als", mmap=mmap)


def test_member_that_is_said_to_lie_elsewhere(tmp_path):
    """Offsets and lengths that lead out of the file, or into other members, are refused."""
    content = saved(plays(TEXT))
    end = content.rindex(b"PK\5\6")
    directory = int.from_bytes(content[end + 16 : end + 20], "little")
    for at, name in ((at, content[at + 46 :]) for at in range(directory, end) if content[at : at + 4] == b"PK\1\2"):
        if name.startswith(b"manifest"):
            continue
        for field in (20, 24, 42):  # sizes, and the offset
            for value in (0, 1, 64, len(content), 2**31):
                damaged = bytearray(content)
                damaged[at + field : at + field + 4] = value.to_bytes(4, "little")
                if damaged == content:
                    continue
                (tmp_path / "plays.als").write_bytes(damaged)
                with pytest.raises(FormatError):
                    load(tmp_path / "plays.als")


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0), bits=st.integers(1, 255))
def test_any_flipped_byte_leaves_mapped_interactions_sound(tmp_path_factory, position, bits):
    damaged = bytearray(saved(plays(TEXT)))
    damaged[position % len(damaged)] ^= bits
    path = tmp_path_factory.getbasetemp() / "flipped.als"
    path.write_bytes(damaged)
    with contextlib.suppress(FormatError):
        assert_sound(load(path))
    try:
        read = load(path, mmap=False)
    except FormatError:
        return
    assert_same(read, plays(TEXT))


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0))
def test_any_truncation_of_mapped_interactions_is_noticed(tmp_path_factory, length):
    content = saved(plays(TEXT))
    path = tmp_path_factory.getbasetemp() / "truncated.als"
    path.write_bytes(content[: length % len(content)])
    with pytest.raises(FormatError):
        load(path)
