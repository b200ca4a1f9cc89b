# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector's service step by step: orders, wishes, one compiler at a time, and attaching.

Compiler, programs and clock are stood in for; the files that it reads are files.
"""

from __future__ import annotations

import errno
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import service as service_file
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import (
    CannotRunError,
    Reason,
)
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.desired import Desired
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.feature import Feature
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.orders import Order, Orders
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.service import CHECK_SECONDS, Service

from tests.support.bcc_service import (
    DIGEST,
    GLOBAL,
    NO_BTF,
    NONE,
    Job,
    Live,
    listener,
    make_service,
    options,
    source,
    told_by,
)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return told_by(monkeypatch)


@pytest.fixture
def service(tmp_path: Path, told: list[str]) -> Service:
    return make_service(tmp_path)


# ---- how it begins ----


def test_it_begins_with_nothing_and_knows_where_its_files_are(tmp_path: Path, told: list[str]) -> None:
    made = Service(options(tmp_path), tmp_path / "bcc.py")
    assert made.publisher.folder == tmp_path / "state"
    assert made.sink.path == tmp_path / "log/events-bcc.jsonl"
    assert made.order_folders == [tmp_path / "etc/kill.d", tmp_path / "run/kill.d"]
    assert (made.stopping, made.ending, made.with_stats) == (False, False, False)
    assert (made.bundle, made.refusal, made.features) == (None, None, [])
    assert made.orders == NONE and made.desired == Desired({}, False, None)
    assert (made.wake_in.getblocking(), made.wake_out.getblocking()) == (False, False)
    assert abs((made.started_ns or 0) / 1e9 - time.clock_gettime(time.CLOCK_BOOTTIME)) < 86400


@pytest.mark.parametrize(
    ("family", "distro", "families"),
    [("6.1", "debian-6.1", ["6.1", "debian-6.1"]), ("6.1", None, ["6.1"]), ("", None, [])],
)
def test_orders_of_a_family_are_of_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, distro: str | None, families: list[str]
) -> None:
    monkeypatch.setattr(service_file, "kernel_facts", lambda: {"family": family, "distro_family": distro})
    assert Service(options(tmp_path), tmp_path).families == families


@pytest.mark.parametrize(
    ("loader", "file", "counts"),
    [(True, "0\n", True), (False, "1\n", True), (False, "0\n", False), (False, "", False), (True, "", True)],
)
def test_runs_are_counted_where_the_loader_or_the_host_has_that_on(
    monkeypatch: pytest.MonkeyPatch, loader: bool, file: str, counts: bool
) -> None:
    files = {"/proc/sys/kernel/bpf_stats_enabled": file}
    monkeypatch.setattr(service_file, "read_small", files.__getitem__)
    assert service_file.kernel_counts_runs(loader) is counts


# ---- kill orders ----


def test_names_of_features_are_judged_only_once_the_bundle_is_known(service: Service, tmp_path: Path) -> None:
    for name in ("feature.third", "feature.typo"):
        (tmp_path / "run/kill.d" / name).touch()
    assert [order.scope for order in service.find_orders().orders] == ["feature.third"]
    assert service.find_orders().unknown == [str(tmp_path / "run/kill.d/feature.typo")]
    service.bundle = None
    assert [order.scope for order in service.find_orders().orders] == ["feature.third", "feature.typo"]


def test_an_order_cuts_what_is_attached_and_ends_its_compiler(service: Service) -> None:
    probe, other = service.features
    probe.live, probe.job, other.live, other.job = Live(), Job(), Live(), Job()  # type: ignore[assignment]
    mine = Orders([Order("feature.probe", "/etc/kill.d/feature.probe")], [])
    assert service.cut_killed(NONE) == 0
    assert service.cut_killed(mine) == 1
    assert (probe.live.done, probe.job.done) == (["cut"], ["kill"])  # type: ignore[attr-defined]
    assert (other.live.done, other.job.done) == ([], [])  # type: ignore[attr-defined]
    assert service.cut_killed(mine) == 0, "what is cut already is not cut again"
    probe.live = probe.job = None
    assert service.cut_killed(GLOBAL) == 1 and other.live.done == ["cut"]  # type: ignore[attr-defined]


def test_all_that_an_order_forbids_is_cut_and_counted(service: Service) -> None:
    for each in service.features:
        each.live = Live()  # type: ignore[assignment]
    assert service.cut_killed(GLOBAL) == 2


def test_it_is_cut_under_the_lock(service: Service) -> None:
    held: list[bool] = []
    service.features[1].live = SimpleNamespace(cut=lambda: held.append(service.lock.locked()))  # type: ignore[assignment]
    service.cut_killed(GLOBAL)
    assert held == [True] and not service.lock.locked()


@pytest.mark.parametrize("attached", [True, False])
def test_orders_are_obeyed_and_told_once(service: Service, tmp_path: Path, told: list[str], attached: bool) -> None:
    if attached:
        service.features[0].live = Live()  # type: ignore[assignment]
    path = tmp_path / "run/kill.d/global"
    assert service.obey() is False and told == []
    path.touch()
    assert service.obey() is True
    assert told == [f"<5>kill order {path} holds"] + ["<5>kill: 1 features detached"] * attached
    assert service.orders.orders == [Order("global", str(path))]
    told.clear()
    assert service.obey() is False and told == []
    path.unlink()
    assert service.obey() is True
    assert told == [f"<5>kill order {path} was released"]


def test_a_mistyped_order_is_told_once(told: list[str]) -> None:
    before, now = Orders(GLOBAL.orders, ["/etc/kill.d/a"]), Orders(GLOBAL.orders, ["/etc/kill.d/a", "/etc/kill.d/b"])
    Service.say_orders(before, now)
    assert told == ["<4>kill order /etc/kill.d/b holds nothing: its name must be global, feature.NAME or family.FAMILY"]
    told.clear()
    Service.say_orders(now, before)
    assert told == []


# ---- the guard ----


def guarded(service: Service, monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], Orders]) -> list[str]:
    """Let the guard meet `steps` in turn, and then the end; what it did."""
    done: list[str] = []
    left = list(steps)

    def sleep(seconds: float) -> None:
        done.append(f"sleep {seconds}")
        service.ending = not left

    service.find_orders = lambda: left.pop(0)()  # type: ignore[method-assign]
    service.wake = lambda: done.append("wake")  # type: ignore[method-assign]
    monkeypatch.setattr(service_file.time, "sleep", sleep)
    service.guard()
    return done


def test_the_guard_wakes_the_loop_when_orders_change_or_something_was_cut(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attached() -> Orders:
        service.orders = GLOBAL
        service.features[0].live = Live()  # type: ignore[assignment]
        return GLOBAL

    pause = f"sleep {CHECK_SECONDS}"
    assert guarded(service, monkeypatch, lambda: NONE) == [pause]
    service.ending = False
    assert guarded(service, monkeypatch, lambda: GLOBAL) == ["wake", pause]
    service.ending = False
    assert guarded(service, monkeypatch, attached, lambda: GLOBAL) == ["wake", pause, pause]
    assert CHECK_SECONDS == 0.1


def test_the_guard_goes_on_whatever_it_meets(
    service: Service, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    def broken() -> Orders:
        raise RuntimeError("odd")

    assert guarded(service, monkeypatch, broken, lambda: GLOBAL).count("wake") == 1
    assert told == ["<3>the guard met an error: RuntimeError('odd')"]


def test_waking_is_one_byte_and_never_waits(service: Service) -> None:
    for _ in range(100_000):
        service.wake()
    assert service.wake_in.recv(1) == b"!"
    service.wake_out.close()
    service.wake()


# ---- desired.json ----


def desired(tmp_path: Path, text: str) -> None:
    (tmp_path / "etc/desired.json").write_text(text)


def wish(features: str = '{"probe":{"enabled":true}}') -> str:
    return f'{{"schema":"ebpf.fleet/desired/v1","bundle_digest":"{DIGEST}","features":{features},"fallbacks":["bcc"]}}'


@pytest.mark.parametrize("at_start", [True, False])
def test_a_wish_is_taken_when_a_word_of_it_is_new(service: Service, tmp_path: Path, at_start: bool) -> None:
    desired(tmp_path, wish())
    assert service.renew_desired(at_start) is True
    assert service.desired == Desired({"probe": {"enabled": True}}, True, None)
    assert service.renew_desired(at_start) is False
    desired(tmp_path, wish("{}"))
    assert service.renew_desired(at_start) is True
    assert service.desired == Desired({}, True, None)
    (tmp_path / "etc/desired.json").unlink()
    assert service.renew_desired(at_start) is True
    assert service.desired.features == {} and service.desired.error is not None
    assert service.desired.error.code == "EF_NO_DESIRED"


@pytest.mark.parametrize("at_start", [True, False])
def test_what_was_wanted_stands_while_desired_json_is_broken(
    service: Service, tmp_path: Path, told: list[str], at_start: bool
) -> None:
    service.desired = Desired({"probe": {"enabled": True}}, True, None)
    desired(tmp_path, "{")
    assert service.renew_desired(at_start) is True
    error = service.desired.error
    assert error is not None and error.code == "EF_DESIRED_MALFORMED"
    assert told == [f"<3>{error.text}"]
    assert service.desired._replace(error=None) == (
        Desired({}, False, None) if at_start else Desired({"probe": {"enabled": True}}, True, None)
    )


def test_an_error_is_said_once_and_another_error_again(service: Service, tmp_path: Path, told: list[str]) -> None:
    service.desired = Desired({"probe": {"enabled": True}}, True, None)
    for text in ("{", "{", '{"schema":"other"}'):
        desired(tmp_path, text)
        service.renew_desired(False)
    assert len(told) == 2 and told[0] != told[1]
    desired(tmp_path, wish())
    assert service.renew_desired(False) is True and service.desired.error is None


# ---- one feature ----


def test_to_take_down_is_a_change_of_state_or_reason(service: Service, told: list[str]) -> None:
    feature = service.features[0]
    off = Reason("EF_NOT_WANTED", "not wanted")
    assert service.take_down(feature, "off", off) is True
    assert service.take_down(feature, "off", off) is False
    assert service.take_down(feature, "killed", off) is True
    assert service.take_down(feature, "killed", off._replace(text="other")) is True
    assert (feature.state, feature.reason) == ("killed", Reason("EF_NOT_WANTED", "other"))
    assert told == [], "what was not attached is not detached"


def test_to_take_down_lets_go_of_compiler_and_programs_and_tells(service: Service, told: list[str]) -> None:
    feature = service.features[0]
    live, job = Live(), Job()
    feature.live, feature.job, feature.state = live, job, "attached"  # type: ignore[assignment]
    assert service.take_down(feature, "off", Reason("EF_NOT_WANTED", "not wanted")) is True
    assert (live.done, job.done) == (["cut", "close"], ["close"])
    assert (feature.live, feature.job, feature.state) == (None, None, "off")
    assert told == ["<5>feature probe: detached: not wanted (EF_NOT_WANTED)"]


@pytest.fixture
def jobs(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What each compiler that is begun was given."""
    begun: list[tuple[Any, ...]] = []

    def begin(*given: Any) -> Job:
        begun.append(given)
        return Job()

    monkeypatch.setattr(service_file, "Job", begin)
    return begun


def test_what_should_run_is_compiled_first(service: Service, jobs: list[tuple[Any, ...]], tmp_path: Path) -> None:
    feature = service.features[0]
    assert service.bring_up(feature, NO_BTF) is True
    assert jobs == [(tmp_path / "bcc.py", feature.source, "ef_events")]
    assert feature.job is not None and feature.tried is True
    assert feature.state == "off"
    assert feature.reason == Reason("EF_UNKNOWN", "about to be attached: BCC compiles it")
    assert service.bring_up(feature, NO_BTF) is False, "its compiler works"
    assert len(jobs) == 1


def test_only_events_have_a_ring_to_ask_for(service: Service, jobs: list[tuple[Any, ...]]) -> None:
    service.features[0].source = source(kind="histogram")
    service.bring_up(service.features[0], NO_BTF)
    assert jobs[0][2] is None


def test_one_compiler_works_at_a_time(service: Service, jobs: list[tuple[Any, ...]]) -> None:
    service.features[1].job = Job()  # type: ignore[assignment]
    assert service.bring_up(service.features[0], NO_BTF) is False
    assert jobs == [] and not service.features[0].tried, "it is tried when the other is ready"
    service.features[1].job = None
    assert service.bring_up(service.features[0], NO_BTF) is True


def test_what_was_tried_in_vain_is_not_tried_again(service: Service, jobs: list[tuple[Any, ...]]) -> None:
    service.features[0].tried = True
    assert service.bring_up(service.features[0], NO_BTF) is False
    assert jobs == []


def test_what_is_attached_stays_so(service: Service, jobs: list[tuple[Any, ...]]) -> None:
    feature = service.features[0]
    feature.live, feature.state = Live(), "attached"  # type: ignore[assignment]
    assert service.bring_up(feature, NO_BTF) is False
    assert jobs == [] and feature.state == "attached" and feature.live.done == []  # type: ignore[union-attr]


@pytest.mark.parametrize("tried", [True, False])
def test_what_an_order_cut_that_came_and_went_is_attached_again(
    service: Service, jobs: list[tuple[Any, ...]], tried: bool
) -> None:
    feature = service.features[0]
    live = Live(links=())
    feature.live, feature.state, feature.tried = live, "attached", tried  # type: ignore[assignment]
    assert service.bring_up(feature, NO_BTF) is not tried
    assert live.done[-1] == "close" and feature.live is None and feature.state == "off"
    assert len(jobs) == 1 - tried


def test_a_compiler_that_cannot_be_started_is_told(
    service: Service, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    def refuse(*_given: Any) -> None:
        raise OSError(errno.EAGAIN, "no process")

    monkeypatch.setattr(service_file, "Job", refuse)
    feature = service.features[0]
    assert service.bring_up(feature, NO_BTF) is True
    assert (feature.state, feature.reason.code, feature.job) == ("disabled", "EF_BCC_COMPILE", None)
    assert "the compiler cannot be started: [Errno 11] no process" in feature.reason.text


def test_a_failure_has_the_loaders_reason_and_ours(service: Service, told: list[str]) -> None:
    feature = service.features[0]
    feature.job = job = Job()  # type: ignore[assignment]
    service.fail(feature, CannotRunError("EF_NO_HEADERS", "no headers"), NO_BTF)
    text = "bcc: no headers; the loader could not: no BTF (EF_NO_BTF)"
    assert (feature.state, feature.reason) == ("disabled", Reason("EF_NO_HEADERS", text))
    assert told == [f"<4>feature probe: disabled: {text} (EF_NO_HEADERS)"]
    assert job.done == ["close"]


class Loader:
    """What the loader says: of every feature, why it could not."""

    stats_enabled = False

    def __init__(self, why: Reason | None = NO_BTF) -> None:
        self.why, self.heard = why, 0

    def listen(self) -> None:
        self.heard += 1

    def could_not(self, _feature: str) -> tuple[Reason | None, Reason]:
        return self.why, Reason("EF_UNKNOWN", "it is asked first")


def harvest(service: Service, answer: Any, why: Reason | None = NO_BTF, live: Any = None) -> tuple[bool, Feature, Job]:
    feature = service.features[0]
    feature.job = job = Job(answer)  # type: ignore[assignment]
    service.attach = lambda of, compiled: setattr(of, "live", live)  # type: ignore[method-assign]
    return service.harvest(feature, Loader(why)), feature, job  # type: ignore[arg-type]


def test_a_compiler_that_works_is_left_to_work(service: Service) -> None:
    changed, feature, job = harvest(service, None)
    assert (changed, feature.job, job.done) == (False, job, [])


def test_what_is_attached_has_the_reason_for_which_the_loader_could_not(service: Service, told: list[str]) -> None:
    done = listener(service)
    changed, feature, job = harvest(service, "compiled", live=Live(links=(1, 2, 3)))
    assert (changed, feature.job, job.done) == (True, None, ["close"])
    assert (feature.state, feature.reason) == ("attached", NO_BTF)
    assert told == ["<5>feature probe: attached through BCC, 3 programs"] and done == ["publish"]


def test_where_the_loader_says_nothing_any_more_that_is_the_reason(service: Service, told: list[str]) -> None:
    listener(service)
    _changed, feature, _job = harvest(service, "compiled", why=None, live=Live())
    assert feature.reason == Reason("EF_UNKNOWN", "the loader does not say")


def test_what_does_not_compile_is_disabled(service: Service, told: list[str]) -> None:
    done = listener(service)
    changed, feature, job = harvest(service, CannotRunError("EF_BCC_COMPILE", "bad"))
    assert (changed, feature.job, job.done, done) == (True, None, ["close"], [])
    assert (feature.state, feature.reason.code) == ("disabled", "EF_BCC_COMPILE")


def test_what_an_order_kept_from_being_attached_is_a_change_and_is_not_announced(
    service: Service, told: list[str]
) -> None:
    done = listener(service)
    changed, feature, _job = harvest(service, "compiled")
    assert (changed, feature.state, told, done) == (True, "off", [], [])


# ---- attaching ----


class Compiled:
    def __init__(self) -> None:
        self.done: list[str] = []

    def close(self) -> None:
        self.done.append("close")


def attaching(service: Service, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[Live, Compiled]:
    live, compiled = Live(), Compiled()
    for name, change in changes.items():
        setattr(live, name, change)
    monkeypatch.setattr(service_file, "Live", lambda *given: live)
    service.attach(service.features[0], compiled)  # type: ignore[arg-type]
    return live, compiled


def test_it_is_prepared_then_attached_under_the_lock(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    service.features[0].sample_every = 7
    live, compiled = attaching(service, monkeypatch, attach=lambda: held.append(service.lock.locked()))
    assert live.done == ["prepare 7"] and held == [True]
    assert service.features[0].live is live and compiled.done == []


def test_an_order_that_came_meanwhile_keeps_it_off(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "run/kill.d/feature.probe").touch()
    service.features[0].tried = True
    live, _compiled = attaching(service, monkeypatch)
    assert live.done == ["prepare 3", "close"]
    assert service.features[0].live is None
    assert service.features[0].tried is False, "it is tried again when the order is gone"


def raising(error: Exception) -> Callable[..., None]:
    def refuse(*_given: Any) -> None:
        raise error

    return refuse


@pytest.mark.parametrize("where", ["prepare", "attach"])
@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (OSError(errno.EPERM, "no"), "EF_ATTACH_FAILED", "[Errno 1] no"),
        (CannotRunError("EF_NO_ATTACH_POINT", "nothing there"), "EF_NO_ATTACH_POINT", "nothing there"),
    ],
)
def test_what_cannot_be_attached_is_let_go(
    service: Service, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception, code: str, text: str
) -> None:
    closed: list[str] = []
    with pytest.raises(CannotRunError) as failed:
        attaching(service, monkeypatch, **{where: raising(error), "close": lambda: closed.append("live")})
    assert (failed.value.code, failed.value.message) == (code, text)
    assert closed == ["live"] and service.features[0].live is None
    assert not service.lock.locked()


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(errno.EPERM, "no"), "EF_LOAD_REJECTED"), (CannotRunError("EF_PERMISSION", "no"), "EF_PERMISSION")],
)
def test_what_was_compiled_is_let_go_where_its_maps_cannot_be_read(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    monkeypatch.setattr(service_file, "Live", raising(error))
    compiled = Compiled()
    with pytest.raises(CannotRunError) as failed:
        service.attach(service.features[0], compiled)  # type: ignore[arg-type]
    assert failed.value.code == code and compiled.done == ["close"]


def test_it_is_made_of_its_source_what_was_compiled_and_the_sink(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(service_file, "Live", lambda *words: given.extend(words) or Live())
    compiled = Compiled()
    service.attach(service.features[0], compiled)  # type: ignore[arg-type]
    assert given == [service.features[0].source, compiled, service.sink]


# ---- sampling ----


@pytest.mark.parametrize(
    ("entry", "every"), [({"enabled": True, "sample_every": 8}, 8), ({"enabled": True}, 3), (None, 3)]
)
@pytest.mark.parametrize("attached", [True, False])
def test_sampling_is_what_is_wished_or_the_contracts(
    service: Service, entry: dict[str, Any] | None, every: int, attached: bool
) -> None:
    feature = service.features[0]
    live = Live()
    feature.live = live if attached else None  # type: ignore[assignment]
    service.desired = Desired({} if entry is None else {"probe": entry}, True, None)
    feature.sample_every = 1
    assert service.apply_sampling(feature) is True
    assert feature.sample_every == every
    assert live.done == [f"sample {every}"] * attached
    assert service.apply_sampling(feature) is False
    assert len(live.done) == attached


# ---- all of it ----


def test_everything_is_read_again_and_acted_on(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def noted(name: str) -> Callable[..., bool]:
        return lambda *given: bool(done.append(f"{name} {getattr(given[0], 'name', given[0]) if given else ''}"))

    for name in ("obey", "renew_desired", "settle", "apply_sampling", "harvest"):
        setattr(service, name, noted(name))
    monkeypatch.setattr(service_file, "kernel_counts_runs", lambda counts: counts)
    loader = Loader()
    loader.stats_enabled = True
    assert service.rescan(loader) is False  # type: ignore[arg-type]
    of_each = ["settle", "apply_sampling", "harvest"]
    expected = ["obey ", "renew_desired False"]
    expected += [f"{name} {feature}" for feature in ("probe", "other") for name in of_each]
    assert done == expected
    assert loader.heard == 1 and service.with_stats is True
    done.clear()
    service.rescan(loader, at_start=True)  # type: ignore[arg-type]
    assert done[1] == "renew_desired True"


@pytest.mark.parametrize("which", ["obey", "renew_desired", "settle", "apply_sampling", "harvest"])
def test_a_change_anywhere_is_a_change(service: Service, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    for name in ("obey", "renew_desired", "settle", "apply_sampling", "harvest"):
        setattr(service, name, lambda *_given, changed=name == which: changed)
    assert service.rescan(Loader()) is True  # type: ignore[arg-type]
    # Twice is a change too: of two features each.
    for name in ("obey", "renew_desired", "settle", "apply_sampling", "harvest"):
        setattr(service, name, lambda *_given: True)
    assert service.rescan(Loader()) is True  # type: ignore[arg-type]


def test_what_is_told_is_what_there_is(service: Service) -> None:
    service.refusal, service.stopping, service.with_stats = NO_BTF, True, True
    assert service.present() == (
        service.kernel, service.started_ns, service.bundle, NO_BTF, True, service.orders, service.desired, True,
        service.features,
    )  # fmt: skip
    published: list[Any] = []
    service.publisher.publish = published.append  # type: ignore[method-assign]
    service.publish()
    assert published == [service.present()]
