"""``xcit-hub doctor`` on machines that are whole, lack something, or are hostile."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from xcit_hub.cli.app import app
from xcit_hub.doctor import ascend, examine, places, probe, software
from xcit_hub.doctor.finding import Finding, Machine
from xcit_hub.doctor.rank_table import rank_table
from xcit_hub.doctor.variables import RULES, variables

TOOLKIT = "/usr/local/Ascend/ascend-toolkit/latest"
SUPPORTED = ("8.2", "8.3")


def write(root: Path, path: str, text: str = "") -> Path:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a server with two cards, as the installers leave them."""
    for name in ("davinci0", "davinci10", "davinci2", "davinci_manager", "devmm_svm", "hisi_hdc", "null"):
        write(tmp_path, f"/dev/{name}")
    write(tmp_path, "/etc/ascend_install.info", "UserName=HwHiAiUser\nDriver_Install_Path_Param=/opt/Ascend\n")
    write(tmp_path, "/opt/Ascend/driver/version.info", "Version=24.1.rc3\nascendhal_version=7.35.23\n")
    write(tmp_path, "/opt/Ascend/firmware/version.info", "Version=7.5.0.1.129\n")
    write(tmp_path, f"{TOOLKIT}/compiler/version.info", "Version=8.2.T10\n")
    write(tmp_path, f"{TOOLKIT}/lib64/libhccl.so")
    return tmp_path


def machine(root: Path, **variables: str) -> Machine:
    return Machine(root, {"ASCEND_HOME_PATH": TOOLKIT, **variables})


def one(findings: object, name: str) -> Finding:
    (found,) = (finding for finding in findings if finding.name == name)
    return found


def test_a_whole_server_is_ok_and_its_cards_are_counted(root: Path) -> None:
    whole = machine(root)
    lines = [*ascend.cards(whole), *ascend.driver(whole), *ascend.cann(whole, SUPPORTED)]
    assert [(line.name, line.state) for line in lines] == [
        ("device", "ok"), ("driver", "ok"), ("firmware", "ok"), ("CANN", "ok"),
    ]  # fmt: skip
    assert lines[0].says == "3 Ascend cards: davinci0, davinci2, davinci10"
    assert "24.1.rc3" in lines[1].says
    assert one(ascend.hccl(whole), "HCCL").state == "ok"


@pytest.mark.parametrize("threads", ["", "2"])
def test_threads_that_nothing_computes_on_are_named(threads: str, root: Path, tmp_path_factory) -> None:
    absent = {"compiled": {"absent": "XCIT_HUB_NATIVE=0"}}
    on_a_gpu = {"mindspore": {"device": "GPU"}, "compiled": {"library": "x", "threads": 2, "dtypes": {}}}
    no_card = Machine(tmp_path_factory.mktemp("no-card"), {"XCIT_HUB_THREADS": threads})
    for place, answers, begins in (
        (machine(root, XCIT_HUB_THREADS=threads), absent, "not used: Ascend"),
        (no_card, absent, "XCIT_HUB_NATIVE=0; MindSpore's own"),
        (no_card, on_a_gpu, "not used: GPU"),
    ):
        line = one(software.compiled(place, answers), "compiled operations")
        assert line.says.startswith(begins)
        assert ("XCIT_HUB_THREADS has no effect" in line.says) == bool(threads)


def test_what_a_server_lacks_is_said_with_what_to_do(root: Path) -> None:
    (root / "opt/Ascend/driver/version.info").write_text("nothing of it\n")
    (root / "opt/Ascend/firmware/version.info").unlink()
    (root / "dev/hisi_hdc").unlink()
    lacking = machine(root)
    lines = {line.name: line for line in [*ascend.cards(lacking), *ascend.driver(lacking)]}
    assert {name: line.state for name, line in lines.items()} == {
        "device": "wrong", "driver": "wrong", "firmware": "missing",
    }  # fmt: skip
    assert "/dev/hisi_hdc" in lines["device"].says
    assert all(line.fails and line.do for line in lines.values())


@pytest.mark.parametrize(
    ("written", "supported", "state", "says"),
    [
        ("Version=8.2.RC1.alpha003", SUPPORTED, "ok", "as MindSpore asks"),
        ("Version=7.0.0", SUPPORTED, "wrong", "made for 8.2, 8.3"),
        ("Version=8.25", SUPPORTED, "wrong", "made for 8.2, 8.3"),
        ("Version=7.0.0", (), "ok", "could not be told"),
        ("Version=\x00\x1b[31m", SUPPORTED, "wrong", "names no version"),
        ("", SUPPORTED, "wrong", "names no version"),
    ],
)
def test_cann_is_held_against_what_mindspore_is_made_for(root: Path, written, supported, state, says) -> None:
    write(root, f"{TOOLKIT}/compiler/version.info", written)
    line = one(ascend.cann(machine(root), supported), "CANN")
    assert line.state == state
    assert says in line.says
    assert "\x1b" not in line.says


def test_mindspore_itself_says_for_which_versions_of_cann_it_is_made() -> None:
    from xcit_hub.models.private import supported_cann

    assert "8.2" in supported_cann()


@pytest.mark.parametrize("value", ["/no/where", "/dev/null", "x" * 5000, "\udcff"])
def test_a_toolkit_that_is_not_one_is_a_line(root: Path, value: str) -> None:
    hostile = Machine(root, {"ASCEND_HOME_PATH": value})
    assert one(ascend.cann(hostile, SUPPORTED), "CANN").state == "wrong"
    assert one(ascend.hccl(hostile), "HCCL").state == "missing"


def test_on_a_cpu_what_is_of_ascend_is_missing_and_not_needed(tmp_path: Path) -> None:
    cpu = Machine(tmp_path, {})
    lines = [*ascend.cards(cpu), *ascend.driver(cpu), *ascend.cann(cpu, SUPPORTED), *ascend.hccl(cpu)]
    assert "a CPU" in lines[0].says
    assert [line.state for line in lines] == ["ok", *["missing"] * 4]
    assert not any(line.fails for line in lines)
    judged = Machine(tmp_path, {}, device="Ascend")
    assert all(line.fails for line in [*ascend.cards(judged), *ascend.driver(judged), *ascend.cann(judged, ())])


# ---- rank tables ---------------------------------------------------------------------------------


def table(**changes: object) -> dict[str, object]:
    devices = [
        {"device_id": str(number), "device_ip": f"192.168.100.{number + 1}", "rank_id": str(number)}
        for number in range(2)
    ]
    whole = {"version": "1.0", "server_count": "1", "server_list": [{"server_id": "10.0.0.1", "device": devices}]}
    return {**whole, "status": "completed", **changes}


def devices(*changes: dict[str, object]) -> dict[str, object]:
    plain = table()["server_list"][0]["device"]
    return table(
        server_list=[{"device": [{**device, **change} for device, change in zip(plain, changes, strict=True)]}]
    )


def judged(root: Path, content: bytes | str | dict[str, object], **environment: str) -> Finding:
    place = root / "rank_table.json"
    written = json.dumps(content) if isinstance(content, dict) else content
    place.write_bytes(written if isinstance(written, bytes) else written.encode())
    return one(rank_table(Machine(root, {"RANK_TABLE_FILE": "/rank_table.json", **environment})), "rank table")


def test_a_rank_table_is_read_as_hccl_reads_it(root: Path) -> None:
    assert one(rank_table(Machine(root, {})), "rank table").state == "ok"
    found = judged(root, table(), RANK_SIZE="2", RANK_ID="1")
    assert (found.state, found.says) == ("ok", "2 cards of 1 servers, in '/rank_table.json'")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"server_list": ' + "9" * 5000 + "}", "not JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        (table(status="initializing"), "status is 'initializing'"),
        (table(status=None), "status is 'None'"),
        (table(server_list={}), "no server_list"),
        (table(server_list=[]), "no server_list"),
        (table(server_list=[None]), "server 0 has no device"),
        (table(server_list=[{"device": [1]}]), "a device of server 0 is not an object"),
        (table(server_count="2"), "server_count is '2', and 1 are listed"),
        (devices({}, {"rank_id": "0"}), "without one: [1]"),
        (devices({}, {"rank_id": "7"}), "without one: [1]"),
        (devices({}, {"rank_id": -1}), "rank_id '-1' of server 0 is not a number"),
        (devices({}, {"rank_id": True}), "rank_id 'True'"),
        (devices({}, {"rank_id": "²"}), "rank_id '²'"),
        (devices({}, {"rank_id": "9" * 5000}), "is not a number"),
        (devices({}, {"device_id": "0"}), "device_id 0 twice"),
        (devices({}, {"device_ip": "192.168.100.1"}), "stands there twice"),
        (devices({}, {"device_ip": "192.168.100.256"}), "is not an address"),
        (devices({}, {"device_ip": 7}), "is not an address"),
    ],
)  # fmt: skip
def test_a_rank_table_that_cannot_be_is_a_line_that_says_why(root: Path, content, says: str) -> None:
    found = judged(root, content)
    assert found.state == "wrong"
    assert says in found.says
    assert len(found.says) < 700


@pytest.mark.parametrize(("name", "value"), [("RANK_SIZE", "8"), ("RANK_SIZE", "x"), ("RANK_ID", "2")])
def test_a_rank_table_that_is_another_runs_is_wrong(root: Path, name: str, value: str) -> None:
    assert judged(root, table(), **{name: value}).state == "wrong"


def test_a_rank_table_that_is_not_a_file_is_a_line(root: Path) -> None:
    (root / "loop").symlink_to("loop")
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    with (root / "huge").open("wb") as sparse:
        sparse.truncate(1 << 40)
    for name in ("loop", "folder", "pipe", "huge", "absent", "a" * 4000):
        found = one(rank_table(Machine(root, {"RANK_TABLE_FILE": f"/{name}"})), "rank table")
        assert found.state == "wrong", name
        assert found.do


# ---- variables -----------------------------------------------------------------------------------

_RIGHT = {
    "GLOG_v": "3", "OMP_NUM_THREADS": "4,2", "XCIT_HUB_THREADS": "16",
    "XCIT_HUB_MACHINE": "aarch64", "XCIT_HUB_REQUIRE_NATIVE": "1", "XCIT_HUB_ALONE": "0",
    "MS_COMPILER_CACHE_ENABLE": "0", "MS_SIMULATION_LEVEL": "",
    "MS_ASCEND_CHECK_OVERFLOW_MODE": "SATURATION_MODE", "MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "8",
    "MS_SCHED_HOST": "node-1.example", "MS_SCHED_PORT": "8118", "MS_NODE_TIMEOUT": "300", "MS_TOPO_TIMEOUT": "600",
    "RANK_ID": "0", "RANK_SIZE": "8", "DEVICE_ID": "7", "HCCL_CONNECT_TIMEOUT": "7200", "HCCL_EXEC_TIMEOUT": "0",
    "HCCL_BUFFSIZE": "200", "HCCL_IF_IP": "fe80::1", "HCCL_IF_BASE_PORT": "50000", "HCCL_WHITELIST_DISABLE": "1",
    "HCCL_INTRA_PCIE_ENABLE": "0", "HCCL_INTRA_ROCE_ENABLE": "1", "HCCL_DETERMINISTIC": "strict",
}  # fmt: skip


def test_right_values_pass_and_every_rule_is_tried(tmp_path: Path) -> None:
    assert _RIGHT.keys() == RULES.keys()
    (line,) = variables(Machine(tmp_path, _RIGHT))
    assert line.state == "ok"
    assert "HCCL_CONNECT_TIMEOUT='7200'" in line.says


@pytest.mark.parametrize("nonsense", ["-1", "-1e3", "yes please", "\n", "٣", "\udcff", "9" * 5000])
def test_nonsense_is_named_in_each_variable(tmp_path: Path, nonsense: str) -> None:
    lines = [*variables(Machine(tmp_path, dict.fromkeys(RULES, nonsense)))]
    wrong = {line.name: line for line in lines if line.state == "wrong"}
    assert wrong.keys() == RULES.keys()
    assert all(line.do and len(line.says) < 400 and "\n" not in line.says for line in wrong.values())


@pytest.mark.parametrize(("name", "value"), [("HCCL_CONNECT_TIMEOUT", "119"), ("MS_SCHED_PORT", "65536")])
def test_a_number_outside_its_range_is_wrong(tmp_path: Path, name: str, value: str) -> None:
    assert one(variables(Machine(tmp_path, {name: value})), name).fails


def test_a_relative_path_of_a_variable_is_looked_up_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    write(tmp_path, "rt.json", json.dumps(table()))
    here = Machine(environment={"RANK_TABLE_FILE": "rt.json", "PYTHONPATH": "src"}, device="CPU")
    assert one(rank_table(here), "rank table").state == "ok"
    assert "PYTHONPATH" not in {line.name for line in variables(here)}


def test_a_search_path_of_nothing_is_told_and_does_not_fail(tmp_path: Path) -> None:
    line = one(variables(Machine(tmp_path, {"LD_LIBRARY_PATH": f"/no/where:{'y' * 5000}:"})), "LD_LIBRARY_PATH")
    assert line.state == "wrong"
    assert not line.fails
    assert "2 of 3 places" in line.says


def test_a_variable_of_ours_that_nothing_reads_is_told_and_does_not_fail(tmp_path: Path) -> None:
    known = dict.fromkeys(("XCIT_HUB_HOME", "XCIT_HUB_NATIVE"), "x")
    line = one(variables(Machine(tmp_path, {**known, "XCIT_HUB_THREAD": "4", "XCIT_HUB_\n": "1"})), "XCIT_HUB_*")
    assert (line.state, line.fails) == ("wrong", False)
    assert "'XCIT_HUB_THREAD'" in line.says and "XCIT_HUB_NATIVE" not in line.says and "\n" not in line.says
    assert [each.name for each in variables(Machine(tmp_path, known))] == ["variables"]
    alone = one(variables(Machine(tmp_path, {"XCIT_HUB_THREAD": "4"})), "XCIT_HUB_*")
    assert "XCIT_HUB_THREADS" in alone.do


def test_on_ascend_what_set_env_sets_is_asked_for(root: Path) -> None:
    absent = {line.name for line in variables(machine(root)) if line.state == "missing"}
    assert absent == {"PYTHONPATH", "LD_LIBRARY_PATH", "ASCEND_OPP_PATH"}


# ---- software, places ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ends with signal 11"),
        ("import os; os._exit(3)", "ends with exit code 3"),
        ("raise OSError('libascend_hal.so: cannot open shared object file')", "libascend_hal.so"),
        ("print('xcit-hub'); __version__ = '1.0'; raise SystemExit(7)", "exit code 7"),
    ],
)
def test_a_broken_mindspore_is_a_line(tmp_path: Path, monkeypatch, body: str, says: str) -> None:
    (tmp_path / "mindspore.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = [*examine.examine(Machine(tmp_path, {"PATH": os.environ["PATH"]}))]
    found = one(lines, "MindSpore")
    assert found.state == "wrong"
    assert says in found.says


def test_versions_that_do_not_fit_are_wrong() -> None:
    answers = {"numpy": "2.1.0", "mindspore": {"version": "2.5.0", "device": "CPU", "cann": []}}
    lines = {line.name: line for line in software.software(answers)}
    assert lines["numpy"].state == lines["MindSpore"].state == "wrong"
    assert "<2" in lines["numpy"].says


def test_mindspore_on_another_device_than_the_machines_is_wrong(root: Path) -> None:
    answers = {"mindspore": {"version": "2.8.0", "device": "CPU", "cann": []}}
    assert one(software.target(machine(root), answers), "MindSpore's device").fails
    assert not one(software.target(Machine(root / "empty", {}), answers), "MindSpore's device").fails


def test_a_cache_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "loop"):
        (line,) = places.cache(place)
        assert line.state in ("wrong", "ok")
    assert one(places.cache(tmp_path / "file"), "cache").state == "wrong"
    assert one(places.cache(tmp_path / "not" / "yet"), "cache").says.startswith(f"'{tmp_path / 'not' / 'yet'}'")
    closed = tmp_path / "closed"
    closed.mkdir(mode=stat.S_IRUSR)
    if not os.access(closed, os.W_OK):  # root may write anywhere
        assert one(places.cache(closed), "cache").state == "wrong"


def test_the_folder_hub_of_this_machine_is_judged_where_it_is_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def found(value: str) -> Finding:
        (line,) = places.machine_hub(Machine(environment={"XCIT_HUB_HOME": value, "HOME": str(tmp_path)}))
        return line

    for value in (tmp_path / "file", tmp_path / "file" / "below", "~nobody-of-this-name/hub"):
        line = found(str(value))
        assert line.fails and line.do and str(value) in line.says and "\n" not in line.says
    relative = found("hub")
    assert (relative.state, relative.fails) == ("wrong", False)
    assert found(str(tmp_path / "not" / "yet")).state == "ok"
    (line,) = places.machine_hub(Machine(environment={"XDG_DATA_HOME": str(tmp_path / "file")}))
    assert not line.fails


def test_hubs_are_named_without_secrets_and_not_asked() -> None:
    environment = {
        "HF_ENDPOINT": "https://user:geheim@mirror.example",
        "HF_TOKEN": "hf_geheim",
        "MODELSCOPE_ENDPOINT": "not an address",
        "MODELSCOPE_API_TOKEN": "geheim",
        "GITCODE_ENDPOINT": "https://[::1",
    }
    lines = {line.name: line for line in places.hubs(Machine(Path("/"), environment), online=False)}
    assert {name: line.state for name, line in lines.items()} == {
        "hub hugging-face": "wrong", "hub modelers": "ok", "hub modelscope": "wrong", "hub gitcode": "wrong",
    }  # fmt: skip
    assert not any("geheim" in f"{line.says}{line.do}" for line in lines.values())
    plain = {line.name: line for line in places.hubs(Machine(Path("/"), {"HF_TOKEN": "hf_geheim"}), online=False)}
    assert "with the token of HF_TOKEN, not asked" in plain["hub hugging-face"].says


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_no_hub_is_asked_whichever_variable_says_so(name: str) -> None:
    lines = {line.name: line for line in places.hubs(Machine(Path("/"), {name: "on"}), online=True)}
    assert lines.pop("hubs").says == f"{name}: none is asked"
    assert all("not asked" in line.says for line in lines.values())
    wrong = one(places.hubs(Machine(Path("/"), {name: "maybe"}), online=False), "hubs")
    assert (wrong.state, f"{name} is 'maybe'" in wrong.says) == ("wrong", True)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://elsewhere\r\n\r\n", "ok"),
        (b"HTTP/1.1 500 No\r\n\r\n", "ok"),
        (b"", "wrong"),
    ],
)
def test_online_a_hub_that_says_anything_answers(monkeypatch, answer: bytes, state: str) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                assert b"hf_geheim" not in client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        line = places._asked("hub", f"http://127.0.0.1:{server.getsockname()[1]}", "HF_ENDPOINT", "", online=True)
        thread.join()
    assert line.state == state


def test_a_check_that_fails_itself_is_a_line_and_the_others_go_on(monkeypatch, tmp_path: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(probe, "ask", lambda _: {})
    monkeypatch.setattr(examine, "rank_table", broken)
    lines = {line.name: line for line in examine.examine(Machine(tmp_path, {}))}
    assert "MemoryError: none left" in lines["rank table"].says
    assert lines["variables"].state == "ok"


# ---- the command ---------------------------------------------------------------------------------


def test_a_hostile_environment_gives_lines_and_never_a_traceback(run_cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "rank.json").write_text("{" * 10_000)
    hostile = {
        **{name: "?" for name in RULES if name != "GLOG_v"},
        "RANK_TABLE_FILE": str(tmp_path / "rank.json"),
        "ASCEND_HOME_PATH": "\n/no/where",
        "XCIT_HUB_NATIVE": "quick",
        "HF_HOME": "/dev/null/cache",
        "XCIT_HUB_HOME": "/dev/null/hub",
        "HF_ENDPOINT": "https://a:b@c",
        "HF_HUB_DOWNLOAD_TIMEOUT": "soon",
    }
    done = run_cli("doctor", "--json", "--device", "CPU", env={**os.environ, **hostile})
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    found = {line["name"]: line for line in json.loads(done.stdout)["findings"]}
    for name in (
        "compiled operations",
        "rank table",
        "hub hugging-face",
        "hub of this machine",
        "cache",
        *RULES.keys() - {"GLOG_v"},
    ):
        assert found[name]["state"] == "wrong", name
        assert found[name]["do"], name


def test_on_this_machine_the_doctor_says_what_it_is(tmp_path: Path, monkeypatch) -> None:
    for name in {*RULES, "RANK_TABLE_FILE"} & os.environ.keys():
        monkeypatch.delenv(name)
    done = CliRunner().invoke(app, ["doctor", "--device", "CPU"])
    assert "there is no Ascend card" in done.stdout
    assert "MindSpore's device: CPU" in done.stdout
    failing = [line for line in done.stdout.splitlines() if line.startswith("to mend: ")]
    # What this machine's disk or numpy is like is not the doctor's to promise.
    assert done.exit_code == bool(failing), done.stdout


@pytest.mark.skipif(Machine().cards != (), reason="this machine has a card")
def test_without_a_card_the_acceptance_is_refused_in_one_sentence(run_cli: Callable, tmp_path: Path) -> None:
    done = run_cli("doctor", "--accept", str(tmp_path / "acceptance.json"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no Ascend card on this machine.\n")
    assert "--device CPU" in done.stderr
    assert not (tmp_path / "acceptance.json").exists()
