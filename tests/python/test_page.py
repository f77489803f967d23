"""The page for people, in a real browser."""

from __future__ import annotations

import fcntl
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from conftest import PATIENCE, wait_until
from playwright.sync_api import sync_playwright
from test_metrics import get
from test_metrics_several import counting, sharing
from zmqlocker import LockerClient, LockerServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

BROWSERS = ["chromium-headless-shell", "chromium", "google-chrome"]
LIMITS: Any = {"api": "3/h", "gpu": "2 at once", "*": "100/h"}
SCRIPT = "<script>document.title = 'broken'</script>"
IMAGE = "<img src=x onerror=\"document.title = 'broken'\">"
DESKTOP, PHONE = (1280, 900), (390, 844)

#: Whether anything is wider than the window, and what.
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
    .filter((it) => getComputedStyle(it).display !== "inline")
    .filter((it) => it.getBoundingClientRect().right > innerWidth + 1)
    .map((it) => it.className || it.tagName)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's, which `scripts/debian` installs."""
    found = [path for path in map(shutil.which, BROWSERS) if path]
    assert found, f"none of {', '.join(BROWSERS)} is installed: run scripts/debian"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found[0])
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[LockerServer]:
    with LockerServer(
        limits=LIMITS, url="tcp://127.0.0.1:*", block=False, metrics="127.0.0.1:*"
    ) as server:
        yield server


@pytest.fixture
def client(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, name="asker") as client:
        yield client


@pytest.fixture
def visit(browser: Browser, server: LockerServer) -> Iterator[Callable[..., Page]]:
    """Open the page; whatever it complains of, or loads from elsewhere, fails the test."""
    contexts, complaints = [], []

    def open_page(
        size: tuple[int, int] = DESKTOP, scheme: Any = "light", of: LockerServer = server
    ) -> Page:
        width, height = size
        viewport: Any = {"width": width, "height": height}
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        context.set_default_timeout(PATIENCE * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        base = str(of.metrics_url)
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((base, "data:")) else complaints.append(request.url)
            ),
        )
        page.goto(base)
        page.wait_for_selector("main:not(.stale)")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def text(page: Page, selector: str) -> str:
    return page.locator(selector).inner_text()


def test_the_page_shows_keys_with_what_is_left(
    client: LockerClient, visit: Callable[..., Page]
) -> None:
    for _ in range(4):
        client.try_acquire("api")
    client.try_acquire("gpx")
    page = visit()
    row = page.locator("#keys tbody tr", has_text="api")
    assert row.locator(".left").inner_text().startswith("0 of 3 left")
    assert row.locator(".refused").inner_text() == "25 %"
    assert row.locator(".under").inner_text() == "3/h"
    assert row.locator(".meter.empty").count() == 1
    assert text(page, "#state") == "ready"


#: Takes a lock, and holds it until it is told a line.
HOLDER = """
    import sys
    from zmqlocker import LockerClient
    with LockerClient(sys.argv[1], name=sys.argv[2]) as client:
        lease = client.lock("nightly").acquire()
        print("held")
        sys.stdin.readline()
        lease.release()
"""


def test_what_happens_is_shown_without_a_reload(
    server: LockerServer, client: LockerClient, visit: Callable[..., Page], script: Any
) -> None:
    page = visit()
    assert "Nobody holds a lock" in text(page, "#locks")
    holder = script(HOLDER, server.url, "first")
    page.wait_for_selector("#locks .party:not(.waits):has-text('first')")
    waiter = script(HOLDER, server.url, "second")
    page.wait_for_selector("#locks .party.waits:has-text('second')")
    holder.tell()
    page.wait_for_selector("#locks .party:not(.waits):has-text('second')")
    assert waiter.line() == "held"
    client.break_lock("nightly")
    page.wait_for_selector(".event:has-text('was taken from'):has-text('second')")
    client.freeze("api", 60.0)
    client.try_acquire("api")
    page.wait_for_selector("#keys .tag.frozen")


def test_who_comes_and_goes_is_told(
    server: LockerServer, client: LockerClient, visit: Callable[..., Page]
) -> None:
    client.peek("api")
    page = visit()
    with LockerClient(server.url, name="visitor") as other:
        other.peek("api")
        page.wait_for_selector("#clients >> text=visitor")
    page.wait_for_selector(".event:has-text('visitor'):has-text('left')")
    page.wait_for_function("!document.getElementById('clients').textContent.includes('visitor')")


def test_names_of_clients_and_keys_are_only_texts(
    server: LockerServer, visit: Callable[..., Page]
) -> None:
    with LockerClient(server.url, name=SCRIPT) as bad, bad.lock(IMAGE):
        bad.try_acquire(IMAGE)
        bad.try_acquire(SCRIPT)
        page = visit()
        page.wait_for_selector("#locks .party")
        for part in ["#keys", "#locks"]:
            assert IMAGE in text(page, part)
        for part in ["#keys", "#clients", "#events"]:
            assert "<script>document.title" in text(page, part)
        assert page.locator("main img").count() == page.locator("main script").count() == 0
        assert page.title() == "zmqlocker"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, (768, 1024), PHONE])
def test_nothing_is_wider_than_the_window(
    server: LockerServer,
    client: LockerClient,
    visit: Callable[..., Page],
    size: tuple[int, int],
    scheme: str,
) -> None:
    client.try_acquire("x" * 256)
    client.try_acquire("wide " * 51)
    with LockerClient(server.url, name="n" * 256) as other, other.lock("l" * 256):
        page = visit(size, scheme)
        page.wait_for_selector("#locks .party")
        assert page.evaluate(TOO_WIDE) == []
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(part) for part in ground[4:-1].split(",")) / 3
        assert (brightness > 128) == (scheme == "light")


def test_who_comes_late_sees_what_was_before(
    server: LockerServer, client: LockerClient, visit: Callable[..., Page]
) -> None:
    def allowed() -> list[int]:
        seen: list[int] = json.loads(get(server, "/api/status")[2])["history"]["allowed"]
        return seen

    wait_until(lambda: len(allowed()) > 0)
    client.try_acquire_many([f"key {number}" for number in range(7)])
    wait_until(lambda: sum(allowed()) == 7)
    before = len(allowed())
    wait_until(lambda: len(allowed()) > before)
    assert allowed()[before - 1] + allowed()[before - 2 :][0] > 0
    assert sum(allowed()) == 7
    page = visit()
    line = page.locator("#chart .line-yes").get_attribute("d")
    assert line
    assert line.count("L") >= before


def test_a_server_that_does_not_answer_is_told_of(browser: Browser, server: LockerServer) -> None:
    page = browser.new_page()
    page.goto(str(server.metrics_url))
    page.wait_for_selector("main:not(.stale)")
    server.stop()
    page.wait_for_selector("main.stale", timeout=PATIENCE * 1000)
    assert text(page, "#state").startswith("no answer for")
    page.close()


def test_keys_can_be_found_and_put_in_order(
    client: LockerClient, visit: Callable[..., Page]
) -> None:
    for _ in range(9):
        client.try_acquire("api")
    client.try_acquire_many(["other"] * 20)
    page = visit()

    def names() -> list[str]:
        return page.locator("#keys .name").all_inner_texts()

    assert names() == ["other", "api"]
    page.select_option("#order", "refused")
    assert names() == ["api", "other"]
    page.fill("#filter", "OTH")
    assert names() == ["other"]
    page.fill("#filter", "nothing")
    assert "No key has that" in text(page, "#keys")


def test_only_the_script_of_the_page_may_run(server: LockerServer) -> None:
    _, headers, body = get(server, "/")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    assert "unsafe" not in policy
    assert headers["X-Frame-Options"] == "DENY"
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert body.count(f'nonce="{nonce}"') == 2
    assert nonce not in get(server, "/")[1]["Content-Security-Policy"]


def test_the_document_of_the_page_is_bounded(server: LockerServer, client: LockerClient) -> None:
    client.try_acquire_many([f"{'k' * 240}{number}" for number in range(2000)])
    others = [LockerClient(server.url, name="n" * 256) for _ in range(200)]
    locks = [other.lock("l" * 240 + str(place)) for place, other in enumerate(others)]
    leases = [lock.acquire() for lock in locks]
    wait_until(lambda: len(json.loads(get(server, "/api/status")[2])["locks"]) > 50)
    body = get(server, "/api/status")[2]
    seen = json.loads(body)
    assert len(body) < 250_000
    assert len(seen["keys"]) == 50
    assert seen["more_locks"]
    assert seen["more_clients"]
    assert len(seen["events"]) <= 100
    for lease in leases:
        lease.release()
    for other in others:
        other.close()


def test_a_server_alone_has_no_list_of_servers(visit: Callable[..., Page]) -> None:
    assert visit().locator("#others").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_servers_that_share_the_keys_are_listed(
    visit: Callable[..., Page], tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    with sharing(tmp_path) as (first, second):
        page = visit(size, scheme, of=second)
        rows = page.locator("#others tbody tr")
        for place, server in enumerate([first, second]):
            row = rows.nth(place).inner_text()
            assert f"s{place}" in row
            assert server.url in row
            assert "32 of 64" in row
            assert ("this one" in row) == (server is second)
        assert text(page, "#others h2").startswith("Servers\n2 share the keys")
        assert page.locator("#others-problem").is_hidden()
        assert page.evaluate(TOO_WIDE) == []
        first.stop()
        page.wait_for_selector("#others tbody:has-text('64 of 64')")
        assert rows.count() == 1
        page.wait_for_selector(".event:has-text('home of 64 of 64 partitions, with 1 servers')")


def test_a_registry_that_is_not_heard_is_told_of(
    visit: Callable[..., Page], tmp_path: Path
) -> None:
    with sharing(tmp_path, count=1) as (server,):
        page = visit(of=server)
        with (tmp_path / "registry" / "registry.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            page.wait_for_selector("#others-problem:has-text('nothing is heard of the registry')")
        page.wait_for_selector("#others-problem", state="hidden")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_peers_are_listed_with_whether_they_are_in_touch(
    visit: Callable[..., Page], tmp_path: Path, size: tuple[int, int]
) -> None:
    with counting(tmp_path, "a", "b", "c") as server:
        page = visit(size, of=server)
        rows = page.locator("#others tbody tr")
        # The third one in its list is the server itself.
        wait_until(lambda: rows.count() == 2)
        assert [row.split()[-3:] for row in rows.all_inner_texts()] == [["out", "of", "touch"]] * 2
        with counting(tmp_path, "b", "a", "c"):
            page.wait_for_selector("#others tr:has-text('b.peers'):has-text('in touch')")
            assert text(page, "#others-problem").startswith("2 of 3 are in touch")
            assert page.evaluate(TOO_WIDE) == []
        page.wait_for_selector("#others tr:has-text('b.peers'):has-text('stopped')")
        page.wait_for_selector(".event:has-text('in touch with ipc://')")
