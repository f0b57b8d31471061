"""Models on disk: what comes back, and what becomes of files that are not as written."""

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
from alscore.persistence import FormatError, atomic_writer, load, save
from alscore.solvers import ConjugateGradient

N_USERS, N_ITEMS = 7, 9
TEXT = [f"naïve «{code}» 坂本" for code in range(N_USERS)]


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
    """The same file after `change(members)`, with the digests made to fit the members if `sign`."""
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
    return fitted(TEXT, [f"item {code}" for code in range(N_ITEMS)])


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
        [Decimal(code) / 8 for code in range(N_USERS)],
        [bytes([code]) for code in range(N_USERS)],
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
    if before.interactions.users.dtype != object:  # of text, numbers … pandas 3 makes narrower types
        assert after.interactions.users.dtype == before.interactions.users.dtype
    assert after.model.user_factors.tobytes() == before.model.user_factors.tobytes()
    assert after.model.item_factors.tobytes() == before.model.item_factors.tobytes()
    assert after.model.user_factors.dtype == dtype
    matrix, expected = after.interactions.matrix, before.interactions.matrix
    assert (matrix.indptr.dtype, matrix.indices.dtype, matrix.dtype) == (np.int64, np.int32, np.float32)
    assert (matrix != expected).nnz == 0
    users, items = before.interactions.users, before.interactions.items
    for found, expected in (
        (after.recommend(users), before.recommend(users)),
        (after.similar_items(items), before.similar_items(items)),
    ):
        assert found.to_numpy(object).tolist() == expected.to_numpy(object).tolist()


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
    with pytest.raises(TypeError, match=r"cannot save the solver .*Mine.* choose another with set_params"):
        save(AlternatingLeastSquares(solver=Mine()), file)
    assert file.getvalue() == b""


def test_only_models_are_saved(tmp_path):
    with pytest.raises(TypeError, match="a Recommender or an AlternatingLeastSquares, not dict"):
        save({}, tmp_path / "model.als")
    with pytest.raises(TypeError, match="not object"):
        save(Recommender(object()), tmp_path / "model.als")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "labels",
    [
        [1, "one", *range(5, 12)],
        [("a", code) for code in range(N_ITEMS)],
        [("a", str(code)) for code in range(N_ITEMS)],
        [frozenset([code]) for code in range(N_ITEMS)],
        [complex(code) for code in range(N_ITEMS)],
        [2**70 + code for code in range(N_ITEMS)],
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
        assert os.stat(file.fileno()).st_mode & 0o777 == 0o600  # nor may others read it while it is written
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
        with pytest.raises(FormatError, match=r"model\.als is not .* model: (File is not a zip|it has no)"):
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
        (update_params(solver={"name": "magic"}), "solver 'magic' is not installed here"),
        (update_params(solver={"name": "cg", "options": {"steps": -1}}), "steps"),
        (update_manifest(kind="AlternatingLeastSquares"), "incomplete set of members"),
        (remove("item_factors.npy"), "incomplete set of members: data.npy"),
        (remove("indices.npy"), "incomplete set of members"),
        (remove("users.arrow"), "incomplete set of members"),
        (swap("users.arrow", "items.arrow"), "users has 9 labels for the 7"),
        (swap("user_factors.npy", "item_factors.npy"), "indptr"),
        (swap("users.arrow", "data.npy"), ""),
        (edit("users.arrow", "ï".encode(), b"\xff\xfe"), "UTF8"),
        (edit("data.npy", b"}", b"\0"), ""),
        (replace(user_factors=float_factors(N_USERS + 1)), "indptr"),
        (replace(item_factors=float_factors(N_ITEMS + 1)), "items has 9 labels for the 10"),
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
    with pytest.raises(FormatError, match=f"is not a usable alscore model: .*{reason}"):
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
def test_want_of_memory_or_disk_is_not_blamed_on_the_file(content, monkeypatch, error):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() < len(content) // 2:
                raise error
            return super().read(size)

    with pytest.raises(type(error)) as caught:
        load(Broken(content))
    assert caught.value is error


def test_offset_to_before_the_start_of_the_file(content, tmp_path):
    """On a disk, unlike in memory, the system refuses such a seek."""
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
