"""Archives are fetched from a local server, which fails in the ways in which servers fail."""

import contextlib
import gzip
import hashlib
import importlib
import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pooch  # at the top: some tests run as another user, who cannot import it
import pytest

from alscore.cli import main
from alscore.datasets.fetch import ARCHIVES, FOLDER_VARIABLE, Archive, fetch

NAME, FILE = "lastfm-360k", "archive.tar.gz"
CONTENT = gzip.compress(random.Random(0).randbytes(300_000))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.paths.append(self.path)
        self.server.headers.append(self.headers)
        responses = self.server.responses[self.path]
        (responses.pop(0) if len(responses) > 1 else responses[0])(self)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """Sends the next of the responses of a path; the last one is repeated."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths, self.headers = [], []
        self.responses = {"/first": [whole], "/second": [whole]}
        self.sent_half, self.ended = threading.Event(), threading.Event()

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request, client_address):
        pass  # many tests make the client close the connection


def send(handler, body, status=200, **headers):
    handler.send_response(status)
    for header, value in {"Content_Length": len(body), **headers}.items():
        handler.send_header(header.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def whole(handler):
    send(handler, CONTENT)


def truncated(handler):
    send(handler, CONTENT[:HALF], Content_Length=len(CONTENT))


def short(handler):
    send(handler, CONTENT[:-1])


def corrupt(handler):
    send(handler, CONTENT[:HALF] + bytes([CONTENT[HALF] ^ 1]) + CONTENT[HALF + 1 :])


def page(handler):
    send(handler, b"<html>Sign in to use this network</html>", Content_Type="text/html")


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(CONTENT)


def stalled(handler):
    truncated(handler)
    handler.server.sent_half.set()
    handler.server.ended.wait(20)


def silent(handler):
    handler.server.ended.wait(20)


def odd_header(handler):
    send(handler, CONTENT, Content_Length="many")


def round_in_circles(handler):
    send(handler, b"", 302, Location=handler.path)


def missing(handler):
    send(handler, b"", 404)


def broken(handler):
    send(handler, b"", 500)


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def archive(server, monkeypatch):
    """An archive of this test in place of a published one, with two addresses on the local server."""
    archive = Archive(FILE, len(CONTENT), SHA256, (server.url("/first"), server.url("/second")), "for tests only")
    monkeypatch.setitem(ARCHIVES, NAME, archive)
    return archive


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The pauses of fetch in seconds, which are recorded and skipped."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    pauses = []
    # Replace the name `time` in this module only: other threads, such as py4j's, sleep too.
    monkeypatch.setattr(importlib.import_module("alscore.datasets.fetch"), "time", SimpleNamespace(sleep=pauses.append))
    return pauses


def process(archive, folder):
    """Start a fetch in a new process."""
    code = f"""if True:
        from alscore.datasets.fetch import ARCHIVES, Archive, fetch
        ARCHIVES[{NAME!r}] = {archive!r}
        print(fetch({NAME!r}, {str(folder)!r}))
    """
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_kept(path, folder):
    assert path == folder / FILE
    assert path.read_bytes() == CONTENT
    assert os.listdir(folder) == [FILE]


def test_an_archive_is_fetched_once(server, archive, tmp_path, capsys, pauses):
    folder = tmp_path / "new" / "folder"
    assert_kept(fetch(NAME, folder), folder)
    assert "lastfm-360k: for tests only\n" in capsys.readouterr().err
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o666 & ~os.umask(os.umask(0o022))
    assert_kept(fetch(NAME, str(folder)), folder)
    assert capsys.readouterr() == ("", "")
    assert server.paths == ["/first"]
    assert server.headers[0]["User-Agent"].startswith("alscore/")
    assert server.headers[0]["Accept-Encoding"] == "identity"
    assert pauses == [0]


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (truncated, "IncompleteRead|the file there is 150,056 bytes"),
        (short, "the file there is 300,112 bytes with SHA-256"),
        (corrupt, "the file there is 300,113 bytes with SHA-256"),
        (page, "the file there is 40 bytes with SHA-256"),
        (endless, "the file there has more than 300,113 bytes"),
        (stalled, "Read timed out"),
        (silent, "Read timed out"),
        (odd_header, "many"),
        (round_in_circles, "Exceeded 30 redirects"),
        (missing, "404"),
        (broken, "500"),
    ],
)
def test_the_second_address_is_used_if_the_first_fails(server, archive, tmp_path, response, reason, pauses):
    server.responses = {"/first": [response], "/second": [missing] * 3 + [whole]}
    with pytest.raises(ConnectionError, match=rf"/first: .*({reason}).*;\n.*/second: 404"):
        fetch(NAME, tmp_path, timeout=0.3, show_progress=False)
    assert os.listdir(tmp_path) == []
    assert_kept(fetch(NAME, tmp_path, timeout=0.3, show_progress=False), tmp_path)
    assert list(dict.fromkeys(server.paths)) == ["/first", "/second"]
    assert pauses == [0, 1, 2, 0]


def test_both_addresses_are_tried_again(server, archive, tmp_path, pauses):
    server.responses = {"/first": [broken, corrupt, whole], "/second": [missing]}
    assert_kept(fetch(NAME, tmp_path), tmp_path)
    assert server.paths == ["/first", "/second"] * 2 + ["/first"]
    assert pauses == [0, 1, 2]


def test_redirected(server, archive, tmp_path):
    server.responses |= {
        "/first": [lambda handler: send(handler, b"", 301, Location="/other")],
        "/other": [lambda handler: send(handler, b"", 307, Location=server.url("/file?download=1"))],
        "/file?download=1": [whole],
    }
    assert_kept(fetch(NAME, tmp_path), tmp_path)
    assert server.paths == ["/first", "/other", "/file?download=1"]


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_the_file_is_not_decompressed(server, archive, tmp_path, encoding):
    server.responses["/first"] = [lambda handler: send(handler, CONTENT, Content_Encoding=encoding)]
    assert_kept(fetch(NAME, tmp_path), tmp_path)
    assert server.paths == ["/first"]


def test_every_address_fails(server, archive, tmp_path, capsys, pauses):
    server.responses = {"/first": [missing], "/second": [corrupt]}
    with pytest.raises(ConnectionError) as caught:
        fetch(NAME, tmp_path, show_progress=False)
    message = str(caught.value)
    assert message.startswith("lastfm-360k could not be downloaded:")
    assert re.search(rf"{archive.urls[0]}: 404 .*;\n", message)
    wrong = hashlib.sha256(CONTENT[:HALF] + bytes([CONTENT[HALF] ^ 1]) + CONTENT[HALF + 1 :]).hexdigest()
    assert f"{archive.urls[1]}: the file there is {len(CONTENT):,} bytes with SHA-256 {wrong}, not " in message
    assert message.endswith(f"put it at {tmp_path / FILE} ({len(CONTENT):,} bytes, SHA-256 {SHA256})")
    assert capsys.readouterr().err == "lastfm-360k: for tests only\n"
    assert os.listdir(tmp_path) == []
    assert server.paths == ["/first", "/second"] * 3
    assert pauses == [0, 1, 2]


def test_offline(tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # a port on which nothing listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        monkeypatch.setitem(ARCHIVES, NAME, Archive(FILE, 1, SHA256, (url,), ""))
        with pytest.raises(ConnectionError, match=f"(?s){url}: .*refused.*Download it by hand"):
            fetch(NAME, tmp_path)


@pytest.mark.parametrize("name", list(ARCHIVES))
def test_the_command_fetches_every_set(server, archive, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setitem(ARCHIVES, name, archive)
    server.responses = {"/first": [truncated], "/second": [corrupt] * 3 + [whole]}
    assert main(["fetch", name, "--folder", str(tmp_path)]) != 0
    out, err = capsys.readouterr()
    assert out == ""
    assert f"Download it by hand from one of these addresses and put it at {tmp_path / FILE}" in err
    assert os.listdir(tmp_path) == []
    assert main(["fetch", name, "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr() == (f"{tmp_path / FILE}\n", f"{name}: for tests only\n")
    assert_kept(tmp_path / FILE, tmp_path)


def test_a_file_put_there_by_hand_is_used(server, archive, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "alscore"
    folder.mkdir()
    (folder / FILE).write_bytes(CONTENT)
    assert_kept(fetch(NAME, folder), folder)
    assert_kept(fetch(NAME), folder)
    assert server.paths == []


@pytest.mark.parametrize("wrong", [b"", CONTENT[:-1], CONTENT[:-1] + b"?", CONTENT + b"?"])
def test_a_wrong_file_is_named_and_not_changed(server, archive, tmp_path, wrong):
    path = tmp_path / FILE
    path.write_bytes(wrong)
    actual, expected = ((len(data), hashlib.sha256(data).hexdigest()) for data in (wrong, CONTENT))
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        fetch(NAME, tmp_path)
    for size, sha256 in (actual, expected):
        assert f"{size:,} bytes with SHA-256 {sha256}" in str(caught.value)
    assert path.read_bytes() == wrong
    assert os.listdir(tmp_path) == [FILE]
    assert server.paths == []


def test_the_licence_is_shown_before_the_download(server, archive, tmp_path, capsys):
    seen = []
    server.responses["/first"] = [lambda handler: (seen.append(sys.stderr.getvalue()), whole(handler))]
    fetch(NAME, tmp_path, show_progress=False)
    assert seen == ["lastfm-360k: for tests only\n"]


def test_progress(server, archive, tmp_path, capsys):
    fetch(NAME, tmp_path)
    assert "100%" in capsys.readouterr().err


def test_the_folder_of_the_file(server, archive, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert_kept(fetch(NAME), tmp_path / "cache" / "alscore")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert_kept(fetch(NAME), tmp_path / ".cache" / "alscore")
    assert pooch.os_cache("alscore") == tmp_path / ".cache" / "alscore"
    monkeypatch.setenv(FOLDER_VARIABLE, "~/variable")
    assert_kept(fetch(NAME), tmp_path / "variable")
    assert_kept(fetch(NAME, "~/argument"), tmp_path / "argument")
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    fetch(NAME)
    assert server.paths == ["/first"] * 4


def test_pooch_is_not_installed(server, archive, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'alscore[fetch]'")):
        fetch(NAME, tmp_path)
    assert os.listdir(tmp_path) == []
    assert capsys.readouterr().err == ""


@contextlib.contextmanager
def unprivileged():
    """Run the block as a user without the rights of root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_is_read_only(server, archive, capsys):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        remedy = f"Permission denied; choose another folder, or set {FOLDER_VARIABLE} to one: '{folder}/{FILE}'"
        with unprivileged(), pytest.raises(PermissionError, match=re.escape(remedy)):
            fetch(NAME, folder)
        os.chmod(folder, 0o755)
        assert fetch(NAME, folder).read_bytes() == CONTENT
        os.chmod(folder, 0o555)
        with unprivileged():
            assert fetch(NAME, folder).read_bytes() == CONTENT
        os.chmod(folder, 0o755)
    assert server.paths == ["/first"]


def test_a_file_for_a_folder_and_a_folder_for_the_file(server, archive, tmp_path):
    (tmp_path / "file").touch()
    for folder in ("file", "file/folder"):
        with pytest.raises(OSError, match="; choose another folder"):
            fetch(NAME, tmp_path / folder)
    (tmp_path / FILE).mkdir()
    with pytest.raises(OSError, match="exists and is not a regular file"):
        fetch(NAME, tmp_path)
    assert server.paths == []


def test_two_processes_at_the_same_time(server, archive, tmp_path):
    both = threading.Barrier(2)

    def wait_for_the_other(handler):
        both.wait(20)
        whole(handler)

    server.responses["/first"] = [wait_for_the_other]
    processes = [process(archive, tmp_path) for _ in range(2)]
    for running in processes:
        out, err = running.communicate(timeout=60)
        assert (running.returncode, out) == (0, f"{tmp_path / FILE}\n"), err
    assert_kept(tmp_path / FILE, tmp_path)
    assert server.paths == ["/first"] * 2


def test_interrupted(server, archive, tmp_path):
    def interrupt(handler):
        truncated(handler)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        handler.server.ended.wait(20)

    server.responses["/first"] = [interrupt, whole]
    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, tmp_path)
    assert os.listdir(tmp_path) == []
    assert_kept(fetch(NAME, tmp_path), tmp_path)


def test_killed(server, archive, tmp_path):
    server.responses["/first"] = [stalled, whole]
    with process(archive, tmp_path) as running:
        assert server.sent_half.wait(60)
        running.kill()
        running.communicate()
    assert not (tmp_path / FILE).exists()
    assert fetch(NAME, tmp_path).read_bytes() == CONTENT


def test_bad_arguments(tmp_path):
    with pytest.raises(
        ValueError, match="'lastfm' is unknown; the known ones are lastfm-360k, lastfm-1k, hetrec-lastfm-2k"
    ):
        fetch("lastfm", tmp_path)
    for timeout in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="timeout must be positive"):
            fetch(NAME, tmp_path, timeout=timeout)


def test_published_facts(shared_data):
    """Size, hash and addresses are those in the notes beside the data, which were taken from the publisher's page."""
    notes = (shared_data / "README.md").read_text()
    for name in ("lastfm-360k", "lastfm-1k"):
        archive = ARCHIVES[name]
        facts = re.search(rf"`{re.escape(archive.file)}`, ([\d,]+) bytes.*?sha256\s+`(\w+)`", notes, re.DOTALL)
        assert (f"{archive.size:,}", archive.sha256) == facts.groups()
        assert all(url.startswith("https://") and url.endswith(archive.file) for url in archive.urls)
    assert ARCHIVES["lastfm-360k"].urls[1] in notes
    for archive in ARCHIVES.values():
        assert len({url.split("/")[2] for url in archive.urls}) == 2
        assert "non-commercial" in archive.licence
