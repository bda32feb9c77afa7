"""Which URLs of a manifest may be read, and where they lead."""

import io
import itertools
import os
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from pairlora.errors import MissingExtraError, MissingPictureError, PictureTooLargeError, StoreError, UnsafeUrlError
from pairlora.store import urls
from pairlora.store.urls import Folder, name_url, open_url, read_bytes, resolve_url

S3 = "s3://studio/nightly/manifest.csv"
MEMORY = "memory://nightly/manifest.csv"


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    (tmp_path / "show" / "plates").mkdir(parents=True)
    (tmp_path / "show" / "plates" / "dog.png").write_bytes(b"12345678")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return str(tmp_path / "show" / "manifest.csv")


def test_a_relative_path_begins_at_the_manifests_folder(manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir("/")
    assert resolve_url("plates/dog.png", manifest) == str(tmp_path / "show/plates/dog.png")
    assert resolve_url("./plates/../plates/dog.png", manifest) == str(tmp_path / "show/plates/dog.png")


def test_a_manifest_named_by_a_relative_path_gives_absolute_urls(manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path / "show")
    assert resolve_url("plates/dog.png", "manifest.csv") == str(tmp_path / "show/plates/dog.png")


@pytest.mark.parametrize("form", ["{}", "file://{}", "FILE://{}"])
def test_an_absolute_path_below_the_manifest_is_allowed(manifest: str, tmp_path: Path, form: str):
    dog = str(tmp_path / "show/plates/dog.png")
    assert resolve_url(form.format(dog), manifest) == dog


@pytest.mark.parametrize(
    "url", ["../secret.png", "plates/../../secret.png", "/etc/passwd", "file:///etc/passwd", "plates/..", ".", "plates/../.", ".."]
)
def test_a_path_that_leaves_the_manifests_folder_is_refused(manifest: str, url: str):
    with pytest.raises(UnsafeUrlError, match="leaves the manifest's folder; move the file"):
        resolve_url(url, manifest)


def test_a_folder_whose_name_begins_like_the_manifests_is_not_below_it(manifest: str, tmp_path: Path):
    (tmp_path / "show2").mkdir()
    with pytest.raises(UnsafeUrlError, match="leaves"):
        resolve_url("../show2/dog.png", manifest)


def test_a_link_to_a_file_outside_is_refused(manifest: str, tmp_path: Path):
    (tmp_path / "show" / "plates" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UnsafeUrlError, match="leaves"):
        resolve_url("plates/link.png", manifest)


def test_a_link_to_a_folder_outside_is_refused(manifest: str, tmp_path: Path):
    (tmp_path / "show" / "out").symlink_to(tmp_path)
    with pytest.raises(UnsafeUrlError, match="leaves"):
        resolve_url("out/secret.png", manifest)


def test_dots_are_followed_after_links_as_the_system_does(manifest: str, tmp_path: Path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "show" / "out").symlink_to(tmp_path / "far" / "deep")
    with pytest.raises(UnsafeUrlError, match="leaves"):
        resolve_url("out/../plates/dog.png", manifest)


def test_a_link_inside_the_folder_is_followed(manifest: str, tmp_path: Path):
    (tmp_path / "show" / "link.png").symlink_to("plates/dog.png")
    assert resolve_url("link.png", manifest) == str(tmp_path / "show/plates/dog.png")


def test_a_manifest_in_a_linked_folder_still_finds_its_pictures(manifest: str, tmp_path: Path):
    (tmp_path / "shortcut").symlink_to(tmp_path / "show")
    assert resolve_url("plates/dog.png", str(tmp_path / "shortcut/manifest.csv")) == str(tmp_path / "show/plates/dog.png")


@pytest.mark.parametrize(
    "url", ["http://host/a.png", "https://host/a.png", "ftp://h/a", "github://o:r@m/a", "memory://a.png", "local:///etc/x"]
)
@pytest.mark.parametrize("place", ["local", S3])
def test_other_protocols_are_off(manifest: str, url: str, place: str):
    with pytest.raises(UnsafeUrlError, match="is off; use a path below the manifest, or a URL of s3, gs or az"):
        resolve_url(url, manifest if place == "local" else place)


@pytest.mark.parametrize("url", ["file:/etc/passwd", "data:image/png;base64,AAAA", "javascript:alert(1)"])
def test_a_protocol_without_slashes_is_refused(manifest: str, url: str):
    with pytest.raises(UnsafeUrlError, match="begins like a URL of protocol"):
        resolve_url(url, manifest)


def test_a_file_name_with_a_colon_is_reached_by_a_leading_dot(manifest: str, tmp_path: Path):
    assert resolve_url("./shot:3.png", manifest) == str(tmp_path / "show/shot:3.png")


@pytest.mark.parametrize("url", ["simplecache::s3://b/a.png", "zip://a.png::s3://b/c.zip", "plates::dog.png"])
def test_chained_urls_are_refused(manifest: str, url: str):
    with pytest.raises(UnsafeUrlError, match="chains URLs"):
        resolve_url(url, manifest)


@pytest.mark.parametrize("url", ["plates/\x00dog.png", "dog\n.png", "dog\ud800.png"])
def test_control_characters_are_refused(manifest: str, url: str):
    with pytest.raises(UnsafeUrlError, match="control character") as caught:
        resolve_url(url, manifest)
    str(caught.value).encode()


@pytest.mark.parametrize("protocol", ["s3", "gs", "gcs", "az", "abfs"])
@pytest.mark.parametrize("place", ["local", S3, MEMORY])
def test_a_full_url_of_any_bucket_is_allowed(manifest: str, protocol: str, place: str):
    url = f"{protocol}://other/plates/dog.png"
    assert resolve_url(url, manifest if place == "local" else place) == url


def test_the_container_of_an_azure_account_is_not_taken_for_a_credential(manifest: str):
    url = "abfs://plates@studio.dfs.core.windows.net/dog.png"
    assert resolve_url(url, manifest) == url


def test_a_relative_path_of_a_remote_manifest_stays_in_its_bucket():
    assert resolve_url("plates/dog.png", S3) == "s3://studio/nightly/plates/dog.png"
    assert resolve_url("plates/dog.png", MEMORY) == "memory://nightly/plates/dog.png"
    assert resolve_url("dog.png", "memory://manifest.csv") == "memory://dog.png"
    assert resolve_url("dog.png", "memory:///manifest.csv") == "memory:///dog.png"


@pytest.mark.parametrize("url", ["../dog.png", "a/../../dog.png", "../../other/dog.png", "../nightly2/dog.png", "."])
@pytest.mark.parametrize("place", [S3, MEMORY])
def test_dots_do_not_leave_the_folder_of_a_remote_manifest(url: str, place: str):
    with pytest.raises(UnsafeUrlError, match="leaves"):
        resolve_url(url, place)


@pytest.mark.parametrize("url", ["/etc/passwd", "file:///etc/passwd", "file://etc/passwd"])
@pytest.mark.parametrize("place", [S3, MEMORY])
def test_a_remote_manifest_names_no_local_file(url: str, place: str):
    with pytest.raises(UnsafeUrlError, match="local file and the manifest lies on"):
        resolve_url(url, place)


@pytest.mark.parametrize("url", ["s3://bucket/../other/dog.png", "s3://bucket/a/.."])
def test_dots_in_a_full_remote_url_are_refused(manifest: str, url: str):
    with pytest.raises(UnsafeUrlError, match=r"holds '\.\.'"):
        resolve_url(url, manifest)


@pytest.mark.parametrize("url", ["s3://", "s3://bucket", "s3://bucket/"])
def test_a_remote_url_names_an_object(manifest: str, url: str):
    with pytest.raises(UnsafeUrlError, match="names no object"):
        resolve_url(url, manifest)


@pytest.mark.parametrize("url", ["s3://key:hunter2@bucket/dog.png", "az://account:hunter2@box/dog.png"])
def test_credentials_in_a_url_are_refused_and_not_repeated(manifest: str, url: str):
    with pytest.raises(UnsafeUrlError, match="holds credentials") as caught:
        resolve_url(url, manifest)
    assert "hunter2" not in str(caught.value)


def test_a_name_for_messages_shows_no_query_and_is_short():
    assert name_url("s3://b/a.png?X-Amz-Signature=hunter2") == "s3://b/a.png?…"
    assert len(name_url("a" * 10_000)) <= 200


def test_every_refusal_says_what_and_then_the_remedy(manifest: str):
    for url in ("../a", "http://h/a", "a::b", "s3://b", "s3://b/../c", "file://h/a", "data:a", "a\x00", "s3://k:s@b/c"):
        with pytest.raises(UnsafeUrlError) as caught:
            resolve_url(url, manifest)
        what, remedy = str(caught.value).rsplit("; ", 1)
        assert what
        assert remedy


def test_many_urls_of_one_folder_resolve_it_once(manifest: str, monkeypatch: pytest.MonkeyPatch):
    looks = itertools.count()
    real = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: (next(looks), real(path))[1])
    folder = Folder(manifest)
    before = next(looks)
    for number in range(50):
        folder.resolve(f"plates/{number}.png")
    assert next(looks) - before - 1 == 1


def test_a_file_of_the_largest_size_is_read_whole(manifest: str):
    assert read_bytes(resolve_url("plates/dog.png", manifest), 8) == b"12345678"


def test_a_file_above_the_limit_is_refused_unread(manifest: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LocalFileSystem, "open", lambda *_: pytest.fail("the file was opened"))
    with pytest.raises(PictureTooLargeError, match="more than the 7 bytes that are allowed; make it smaller"):
        read_bytes(resolve_url("plates/dog.png", manifest), 7)


def test_a_file_that_does_not_say_its_size_is_read_no_further_than_the_limit(manifest: str, monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            asked.append(size or 0)
            return bytes(size or 0)

    monkeypatch.setattr(LocalFileSystem, "info", lambda *_: {"type": "file", "size": None})
    monkeypatch.setattr(LocalFileSystem, "open", lambda *_: Endless())
    with pytest.raises(PictureTooLargeError):
        read_bytes(resolve_url("plates/dog.png", manifest), 7)
    assert asked == [8]


def test_neither_a_folder_nor_a_pipe_is_a_file(manifest: str, tmp_path: Path):
    os.mkfifo(tmp_path / "show" / "pipe.png")
    for name in ("plates", "pipe.png", "nowhere.png", "plates/dog.png/x.png"):
        with pytest.raises(MissingPictureError, match="there is no such file; check the URL"):
            read_bytes(resolve_url(name, manifest), 10)


def test_a_file_system_that_fails_is_an_error_of_the_store(manifest: str, monkeypatch: pytest.MonkeyPatch):
    def fail(*_):
        raise TimeoutError(110, "Connection timed out")

    monkeypatch.setattr(LocalFileSystem, "info", fail)
    with pytest.raises(StoreError, match=r"cannot read \S+dog\.png: TimeoutError: .*Connection timed out"):
        read_bytes(resolve_url("plates/dog.png", manifest), 10)


@pytest.mark.parametrize("url", ["http://localhost/a.png", "simplecache::memory://a", "s3://b/x::memory://a"])
def test_what_may_not_be_named_may_not_be_opened_either(url: str):
    with pytest.raises(UnsafeUrlError):
        open_url(url)


def test_a_local_path_is_never_taken_for_a_chain(tmp_path: Path):
    (tmp_path / "a::b").mkdir()
    (tmp_path / "a::b" / "dog.png").write_bytes(b"dog")
    assert read_bytes(str(tmp_path / "a::b" / "dog.png"), 10) == b"dog"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    def fail(url: str, **_):
        raise ImportError("no s3fs")

    monkeypatch.setattr(urls, "url_to_fs", fail)
    with pytest.raises(MissingExtraError, match=r"pairlora\[s3\]"):
        read_bytes("s3://bucket/dog.png", 1)
