"""Data files in archives are read in place, and archives with unusual members are refused."""

import contextlib
import gzip
import io
import os
import re
import struct
import tarfile
import tracemalloc
import zipfile

import pytest

from alscore.datasets._archives import DAMAGE_ERRORS, open_data

NAME = "plays.tsv"
CONTENT = b"".join(b"user %d\tartist %d\n" % (n * n % 1009, n) for n in range(20_000))
OTHERS = {"data/README.txt": b"about", "data/plays.tsv.bak": b"no", "data/plays.tsv/": b""}


def tar(path, members, mode="w:gz"):
    """Write a tar of `members`, (TarInfo or name, content) each."""
    with tarfile.open(path, mode) as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if info.name.endswith("/"):
                info.type = tarfile.DIRTYPE
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def tar_info(name, kind, **attributes):
    info = tarfile.TarInfo(name)
    info.type = kind
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return path


def zip_info(name, kind):
    info = zipfile.ZipInfo(name)
    info.external_attr = kind << 16
    return info


def with_in_directory(path, offset, form, value):
    """Overwrite a field of the first entry in a zip's central directory."""
    raw = bytearray(path.read_bytes())
    struct.pack_into(form, raw, raw.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(raw)
    return path


@contextlib.contextmanager
def peak_below(n_bytes):
    """Assert that the block never uses more than `n_bytes` of memory."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < n_bytes
    finally:
        tracemalloc.stop()


def read(path):
    with open_data(path, NAME) as stream:
        return stream.read()


def members(content):
    return [*OTHERS.items(), (f"data/deep/{NAME}", content), ("data/last.txt", b"end")]


CONTAINERS = {  # functions that write a file with some content
    "plain": lambda path, content: path.write_bytes(content),
    "gzip": lambda path, content: path.write_bytes(gzip.compress(content)),
    "tar": lambda path, content: tar(path, members(content), "w"),
    "tar.gz": lambda path, content: tar(path, members(content)),
    "tar.xz": lambda path, content: tar(path, members(content), "w:xz"),
    "tar.bz2": lambda path, content: tar(path, members(content), "w:bz2"),
    "zip": lambda path, content: zipped(path, members(content)),
    "stored zip": lambda path, content: zipped(path, members(content), zipfile.ZIP_STORED),
    "bzip2 zip": lambda path, content: zipped(path, members(content), zipfile.ZIP_BZIP2),
    "lzma zip": lambda path, content: zipped(path, members(content), zipfile.ZIP_LZMA),
    "zip from Windows": lambda path, content: zipped(path, [(zip_info(rf"data\{NAME}", 0), content)]),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_bytes(tmp_path, container):
    path = tmp_path / "no-suffix"
    CONTAINERS[container](path, CONTENT)
    assert read(path) == read(str(path)) == CONTENT
    with open_data(path, NAME) as stream:
        assert list(stream) == CONTENT.splitlines(keepends=True)
    with open_data(path, NAME) as stream:
        assert b"".join(iter(lambda: stream.read(1013), b"")) == CONTENT
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("container", CONTAINERS)
def test_an_empty_file(tmp_path, container):
    CONTAINERS[container](tmp_path / "file", b"")
    assert read(tmp_path / "file") == b""


@pytest.mark.parametrize("bad_first", [True, False])
@pytest.mark.parametrize("path", [f"/{NAME}", "/etc/passwd", "../x", f"a/../../{NAME}", "..", rf"..\{NAME}", r"C:\x"])
@pytest.mark.parametrize("write", [tar, zipped])
def test_paths_that_lead_out_of_the_archive(tmp_path, write, path, bad_first):
    members = [(path, b"x"), (NAME, CONTENT)]
    archive = write(tmp_path / "archive", members if bad_first else members[::-1])
    with pytest.raises(ValueError, match=re.escape(f"{archive} is refused: its member {path!r} has a path that")):
        read(archive)


@pytest.mark.parametrize("name", [NAME, "other"])
@pytest.mark.parametrize(
    "kind", ["SYMTYPE", "LNKTYPE", "CHRTYPE", "BLKTYPE", "FIFOTYPE", "GNUTYPE_SPARSE"]
)  # fmt: skip
def test_links_and_devices_in_tar(tmp_path, kind, name):
    odd = tar_info(name, getattr(tarfile, kind), linkname="/etc/passwd")
    archive = tar(tmp_path / "archive.tar.gz", [(odd, b""), (NAME, CONTENT)])
    with pytest.raises(ValueError, match=f"member '{name}' is a link, a device or a sparse file"):
        read(archive)


def test_a_sparse_file_in_pax_form(tmp_path):
    """It would be read as 64 GiB of zeros."""
    headers = {"GNU.sparse.map": "0,3", "GNU.sparse.realsize": str(1 << 36), "GNU.sparse.size": str(1 << 36)}
    archive = tar(tmp_path / "a.tar.gz", [(tar_info(NAME, tarfile.REGTYPE, pax_headers=headers), b"abc")])
    with pytest.raises(ValueError, match=f"member '{NAME}' is a link, a device or a sparse file"):
        read(archive)


@pytest.mark.parametrize("name", [NAME, "other"])
@pytest.mark.parametrize("kind", [0o120777, 0o020666, 0o060666, 0o010666, 0o140777])
def test_links_and_devices_in_zip(tmp_path, kind, name):
    archive = zipped(tmp_path / "archive.zip", [(zip_info(name, kind), b"/etc/passwd"), ("x/" + NAME, CONTENT)])
    with pytest.raises(ValueError, match=f"member '{name}' is a link or a device"):
        read(archive)


def test_an_encrypted_member(tmp_path):
    archive = with_in_directory(zipped(tmp_path / "archive.zip", [(NAME, CONTENT)]), 8, "<H", 1)
    with pytest.raises(ValueError, match=f"member '{NAME}' is encrypted"):
        read(archive)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(("change", "reason"), [(-1, "more"), (-len(CONTENT), "more"), (1, "fewer"), (9**9, "fewer")])
def test_another_size_than_declared_in_zip(tmp_path, compression, change, reason):
    declared = len(CONTENT) + change
    archive = zipped(tmp_path / "archive.zip", [(NAME, CONTENT)], compression)
    with_in_directory(archive, 24, "<I", declared)
    with pytest.raises(ValueError, match=f"member '{NAME}' has {reason} than the {declared:,} bytes declared"):
        read(archive)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("change", [-len(CONTENT), -5000, 5000, 10**18])
@pytest.mark.parametrize("name", [NAME, "other"])
def test_another_size_than_declared_in_tar(tmp_path, pack, change, name):
    """The bytes where the next header should be are no header. tarfile alone would end the archive there."""
    archive = tar(tmp_path / "archive", [(name, CONTENT), (f"x/{NAME}", CONTENT)], "w")
    raw = bytearray(archive.read_bytes())
    header = tarfile.TarInfo.frombuf(raw[:512], "utf-8", "strict")
    header.size += change
    raw[:512] = header.tobuf(tarfile.GNU_FORMAT)
    archive.write_bytes(pack(raw))
    with pytest.raises(tarfile.ReadError, match=r"a header of the tar is damaged: |unexpected end of data"):
        read(archive)


BIG = bytes(1 << 24)
LONG_HEADERS = {
    "pax": (tar_info("x", tarfile.XHDTYPE), BIG),
    "global pax": (tar_info("x", tarfile.XGLTYPE), BIG),
    "long name": (tar_info("x", tarfile.GNUTYPE_LONGNAME), BIG),
    "long link": (tar_info("x", tarfile.GNUTYPE_LONGLINK), BIG),
    "sparse map": (
        tar_info("x", tarfile.REGTYPE, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
        b"9999999\n" + (b"0" * 499 + b"\n") * 3000,
    ),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("header", LONG_HEADERS)
def test_headers_that_would_fill_the_memory(tmp_path, header, first):
    members = [LONG_HEADERS[header], (NAME, CONTENT)]
    archive = tar(tmp_path / "archive.tar.gz", members if first else members[::-1])
    with peak_below(1 << 22), pytest.raises(tarfile.ReadError, match="header of the tar has more than 1,048,576 bytes"):
        read(archive)


def test_a_chain_of_headers_without_end(tmp_path):
    archive = tar(tmp_path / "archive.tar.gz", [(tar_info("x", tarfile.GNUTYPE_LONGNAME), b"x")] * 2000)
    with pytest.raises(tarfile.ReadError, match="a header of the tar"):
        read(archive)


def test_a_header_with_text_for_a_number(tmp_path):
    odd = tar_info("x", tarfile.REGTYPE, pax_headers={"GNU.sparse.map": "a,b", "GNU.sparse.size": "9"})
    with pytest.raises(tarfile.ReadError, match="a header of the tar is damaged: invalid literal"):
        read(tar(tmp_path / "archive", [(NAME, CONTENT), (odd, b"")]))


def test_a_long_name_is_allowed(tmp_path):
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "archive", "w", format=form) as archive:
            info = tarfile.TarInfo("é" * 10_000 + "/" + NAME)
            info.size = len(CONTENT)
            archive.addfile(info, io.BytesIO(CONTENT))
        assert read(tmp_path / "archive") == CONTENT


@pytest.mark.parametrize("content", [bytes(511), bytes(512), bytes(100_000), b"a" * 512])
def test_a_file_without_a_tar_header_is_not_an_archive(tmp_path, content):
    for pack in (bytes, gzip.compress):
        (tmp_path / "file").write_bytes(pack(content))
        assert read(tmp_path / "file") == content


@pytest.mark.parametrize("write", [tar, zipped])
def test_memory_holds_one_buffer(tmp_path, write):
    archive = write(tmp_path / "archive", [(NAME, bytes(1 << 25))])
    with peak_below(1 << 22), open_data(archive, NAME) as stream:
        assert sum(len(block) for block in iter(lambda: stream.read(1 << 16), b"")) == 1 << 25


def test_memory_does_not_grow_with_the_members(tmp_path):
    archive = tar(tmp_path / "archive.tar.gz", [(f"{n}.txt", b"") for n in range(2_000)] + [(NAME, b"end")])
    with peak_below(1 << 19):
        assert read(archive) == b"end"


@pytest.mark.parametrize("container", ["gzip", "tar", "tar.gz", "tar.xz", "tar.bz2", "zip", "bzip2 zip", "lzma zip"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_truncated(tmp_path, container, part):
    path = tmp_path / "file"
    CONTAINERS[container](path, CONTENT)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(part * len(raw))])
    with pytest.raises(DAMAGE_ERRORS):
        read(path)


def test_tar_is_checked_to_its_end(tmp_path):
    """The checksum of gzip comes last. It is verified when the caller reads a part of the member or all of it."""
    archive = tar(tmp_path / "archive.tar.gz", [(NAME, bytes((5 << 16) - 1024))])
    unpadded = gzip.decompress(archive.read_bytes())[: (5 << 16) + 512]  # the end of a tar is two empty blocks
    raw = bytearray(gzip.compress(unpadded))
    raw[-8] ^= 1
    archive.write_bytes(raw)
    for n_bytes in (10, 320_000):
        with pytest.raises(gzip.BadGzipFile, match="CRC"), open_data(archive, NAME) as stream:
            assert stream.read(n_bytes) == bytes(n_bytes)


@pytest.mark.parametrize(
    "container", ["gzip", "tar.gz", "tar.xz", "tar.bz2", "zip", "stored zip", "bzip2 zip", "lzma zip"]
)
def test_corrupt(tmp_path, container):
    path = tmp_path / "file"
    CONTAINERS[container](path, CONTENT)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 9] = b"corrupted"
    path.write_bytes(raw)
    with pytest.raises(DAMAGE_ERRORS):
        read(path)


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        pytest.param(10, "<H", 99, id="compression"),
        pytest.param(6, "<H", 99, id="version"),
        pytest.param(42, "<I", 1 << 31, id="offset"),
        pytest.param(20, "<I", 1 << 31, id="size"),
    ],
)
def test_a_damaged_directory_of_a_zip(tmp_path, offset, form, value):
    archive = with_in_directory(zipped(tmp_path / "archive.zip", [(NAME, CONTENT)]), offset, form, value)
    with pytest.raises(zipfile.BadZipFile):
        read(archive)


def test_a_name_in_a_zip_that_is_not_utf_8(tmp_path):
    archive = zipped(tmp_path / "archive.zip", [(NAME, CONTENT), ("é", b"")])
    archive.write_bytes(archive.read_bytes().replace("é".encode(), b"\xe9\xe9"))
    with pytest.raises(zipfile.BadZipFile, match="utf-8"):
        read(archive)


def test_paths_without_a_data_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tsv"):
        read(tmp_path / "nowhere.tsv")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", "/dev/null"):
        with pytest.raises(ValueError, match=f"{path} is not a regular file"):
            read(path)
    for write in (tar, zipped):
        with pytest.raises(ValueError, match=rf"archive is an archive without {NAME}"):
            read(write(tmp_path / "archive", OTHERS.items()))
        with pytest.raises(ValueError, match=rf"archive is an archive with 2 files named {NAME}"):
            read(write(tmp_path / "archive", [(f"one/{NAME}", b"1"), (f"two/{NAME}", b"2")]))
