from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from converters import convert as conversion
from converters import prove
from converters.command import convert_file
from converters.convert import Options, convert
from converters.folders import convert_all, left_out, pairs
from xcit_hub.checkpoints import checkpoint, translate
from xcit_hub.checkpoints.checkpoint import StoredTensor
from xcit_hub.checkpoints.report import Report
from xcit_hub.errors import HubError, InputError
from xcit_hub.files import sha256_of
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import architecture

NAME = "xcit_nano_12_p16_224"


def make(path: Path, family: str = "timm", seed: int = 0, metadata: dict[str, str] | None = None) -> Path:
    generator = np.random.default_rng(seed)
    ours = {
        name: StoredTensor.of(np.abs(generator.standard_normal(shape, np.float32)) * 0.05)
        for name, shape in parameter_shapes(architecture(NAME)).items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(path, translate.from_ours(ours, family), metadata or {})
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("source") / "nano.safetensors")


def door(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"converters.{name}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


# ---- Proof


def test_what_is_written_is_proved_beside_pytorch_by_default_and_reported(source: Path, tmp_path: Path):
    report = convert(source, tmp_path / "x.ckpt", report=tmp_path / "report.json")
    assert report.parity is not None
    assert report.parity["passed"]
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["format_version"] == 1
    assert written["parity"]["max_error"] == report.parity["max_error"]
    assert {"mindspore", "torch", "timm"} <= set(written["versions"])


def test_wide_networks_are_proved_only_when_asked(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def proof(target, _report, _stage):
        asked.append(target.name)
        return {"passed": True}

    monkeypatch.setattr(prove, "proof", proof)
    convert(source, tmp_path / "default.ckpt")
    convert(source, tmp_path / "declined.ckpt", verify=False)
    monkeypatch.setattr(conversion, "_WIDEST_BY_DEFAULT", 64)
    convert(source, tmp_path / "wide.ckpt")
    convert(source, tmp_path / "wide_asked.ckpt", verify=True)
    assert asked == ["default.ckpt", "wide_asked.ckpt"]


def test_without_timm_nothing_is_proved_unless_asked_which_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prove.importlib.util, "find_spec", lambda name: None)
    assert convert(source, tmp_path / "x.ckpt").parity is None
    with pytest.raises(InputError, match="torch and timm not installed"):
        convert(source, tmp_path / "x.ckpt", verify=True)


def test_what_fails_its_proof_replaces_nothing_and_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    convert(source, tmp_path / "x.ckpt", verify=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    figures = {"passed": False, "max_error": 1.0, "relative_error": 1.0, "bar": 1e-4}
    monkeypatch.setattr(prove, "proof", lambda written, *_: figures if written.is_file() else None)
    with pytest.raises(typer.Exit) as left:
        convert_file(
            str(make(tmp_path.parent / "other" / "other.safetensors", seed=5)),
            tmp_path / "x.ckpt",
            Options(),
            True,
            tmp_path.parent / "other" / "report.json",
        )
    assert left.value.exit_code == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    told = json.loads((tmp_path.parent / "other" / "report.json").read_text())
    assert told["target"] is None and told["parity"] == figures
    with pytest.raises(typer.Exit):
        convert_file(str(source), tmp_path / "new.ckpt", Options(), True, None)
    assert {path.name for path in tmp_path.iterdir()} == set(before)


@pytest.mark.parametrize("report", ["nano.safetensors", "x.ckpt", "x.config.json", "link.json", "none/r.json", "."])
def test_a_report_that_would_overwrite_something_or_cannot_be_written_is_refused_before_any_work(
    run_here, source: Path, tmp_path: Path, report: str
):
    shutil.copy(source, tmp_path / "nano.safetensors")
    (tmp_path / "link.json").hardlink_to(tmp_path / "nano.safetensors")
    before = (tmp_path / "nano.safetensors").read_bytes()
    done = run_here("convert", "nano.safetensors", "x.ckpt", "--report", report, "--no-verify", cwd=tmp_path)
    assert done.returncode == 2
    assert "The report" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "nano.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "nano.safetensors"]


def test_a_published_name_is_fetched_as_that_model(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from xcit_hub.hub.stores import File, Snapshot
    from xcit_hub.hub.stores.hugging_face import HuggingFaceStore

    fetched: list[tuple[str, str]] = []

    def fetch(_: HuggingFaceStore, snapshot: Snapshot, path: str) -> Path:
        fetched.append((snapshot.name, path))
        return source

    held = {"model.safetensors": File()}
    monkeypatch.setattr(HuggingFaceStore, "resolve", lambda _, name, revision: Snapshot(name, revision, held, "a hub"))
    monkeypatch.setattr(HuggingFaceStore, "fetch", fetch)
    report = convert("xcit_nano_12_p16_384.fb_dist_in1k", tmp_path / "x.ckpt", verify=False)
    assert fetched == [("timm/xcit_nano_12_p16_384.fb_dist_in1k", "model.safetensors")]
    assert report.weights.architecture.name == "xcit_nano_12_p16_384"


def test_what_cannot_be_fetched_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(HubError, match="cannot be reached") as caught:
        convert("xcit_nano_12_p16_224.fb_in1k", tmp_path / "x.ckpt")
    assert "huggingface.co/timm/xcit_nano_12_p16_224.fb_in1k" in str(caught.value)
    with pytest.raises(HubError, match="plain file") as caught:
        convert("xcit_small_12_p8_224.fb_dino", tmp_path / "x.ckpt")
    assert "dl.fbaipublicfiles.com" in str(caught.value)


# ---- Folders


def test_a_folder_is_converted_resumed_and_its_failures_do_not_stop_the_rest(tmp_path: Path):
    folder, out = tmp_path / "in", tmp_path / "out"
    make(folder / "a.safetensors")
    make(folder / "deep" / "b.safetensors", seed=1)
    make(folder / "c.ckpt", "xcit-hub")  # tells no dialect
    (folder / "d.safetensors").write_bytes(b"broken")
    (folder / "notes.txt").write_text("no checkpoint")
    planned = pairs(folder, out, ".ckpt")
    assert [target.relative_to(out).as_posix() for _, target in planned] == [
        "a.ckpt",
        "c.ckpt",
        "d.ckpt",
        "deep/b.ckpt",
    ]

    def run(options: Options) -> dict[str, str]:
        outcomes = {}
        for done in convert_all(planned, options, verify=False):
            outcomes[done.source.name] = "failed" if done.error else "done" if done.report else "before"
        return outcomes

    first = {"a.safetensors": "done", "c.ckpt": "failed", "d.safetensors": "failed", "b.safetensors": "done"}
    assert run(Options()) == first
    assert sorted(path.name for path in out.rglob("*.ckpt")) == ["a.ckpt", "b.ckpt"]
    assert run(Options()) == {**first, "a.safetensors": "before", "b.safetensors": "before"}
    make(folder / "a.safetensors", seed=2)  # another source
    (out / "deep" / "b.ckpt").write_bytes(b"damaged")  # another target
    assert run(Options()) == first
    assert run(Options(dtype="float16")) == first  # another wish
    assert json.loads((out / "a.ckpt.report.json").read_text())["target"]["sha256"] == sha256_of(out / "a.ckpt")


def in_two_files(source: Path, index: Path, scale: float = 1.0) -> list[Path]:
    """Write a checkpoint's tensors, times ``scale``, into two files with an index."""
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    with checkpoint.read(source) as stored:
        tensors = {name: tensor.numpy() * np.float32(scale) for name, tensor in stored.tensors.items()}
    table = {name: names[place % 2] for place, name in enumerate(tensors)}
    for name in names:
        checkpoint.write(index.with_name(name), {key: tensors[key] for key, held in table.items() if held == name})
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return [index.with_name(name) for name in names]


def test_a_checkpoint_in_several_files_is_replaced_by_no_target_and_no_report(source: Path, tmp_path: Path):
    index = tmp_path / "model.safetensors.index.json"
    _, part = in_two_files(source, index)
    before = sha256_of(part)
    with pytest.raises(InputError, match="The target is a part of the source"):
        convert(index, part, verify=False)
    with pytest.raises(InputError, match="The report would overwrite a part of the source"):
        convert(index, tmp_path / "whole.ckpt", report=part, verify=False)
    with pytest.raises(InputError, match="named as one of several files"):
        convert(index, tmp_path / "other-00001-of-00002.safetensors", verify=False)
    assert sha256_of(part) == before
    assert {path.name for path in tmp_path.iterdir()} >= {index.name, part.name}
    assert not {"whole.ckpt", "other-00001-of-00002.safetensors"} & {path.name for path in tmp_path.iterdir()}


def test_a_checkpoint_in_several_files_is_done_before_until_one_of_them_changes(source: Path, tmp_path: Path):
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.parent.mkdir()

    def done_before() -> bool:
        planned = pairs(index.parent, tmp_path / "out", ".ckpt")
        (done,) = convert_all(planned, Options(), verify=False)
        assert done.error is None
        return done.report is None

    in_two_files(source, index)
    assert [done_before(), done_before()] == [False, True]
    kept = index.read_bytes()
    in_two_files(source, index, 0.5)
    assert index.read_bytes() == kept
    assert [done_before(), done_before()] == [False, True]


def test_a_conversion_that_fails_leaves_none_of_the_folders_that_it_made(tmp_path: Path, monkeypatch):
    broken, good = tmp_path / "in" / "a" / "b" / "broken.safetensors", tmp_path / "in" / "c" / "d" / "good.safetensors"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"broken")
    make(good)
    (tmp_path / "out" / "c").mkdir(parents=True)
    planned = pairs(tmp_path / "in", tmp_path / "out", ".ckpt")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("converters.folders.write_report", full)
    assert all(done.error for done in convert_all(planned, Options(), verify=False))
    kept = ["c", "c/d", "c/d/good.ckpt", "c/d/good.config.json"]  # what was written stays
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")) == kept
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr("converters.folders.convert", full)
    assert all(done.error for done in convert_all(planned, Options(), verify=False))
    assert not (tmp_path / "out").exists()


def test_a_folder_in_two_formats_is_done_in_both_and_so_is_one_of_an_earlier_version(source: Path, tmp_path: Path):
    targets = [tmp_path / "out" / name for name in ("a.ckpt", "a.pth")]

    def done(target: Path) -> bool:
        return [each.report for each in convert_all([(source, target)], Options(), verify=False)] == [None]

    assert [done(target) for target in targets] == [False, False]
    assert [done(target) for target in targets] == [True, True]
    targets[0].with_name("a.ckpt.report.json").rename(targets[0].with_name("a.report.json"))
    assert done(targets[0])


def test_a_folders_checkpoints_are_found_under_every_suffix_and_those_in_several_files_once(tmp_path: Path):
    names = (
        "a.pth.tar",
        "b.v2.safetensors",
        "c.th",
        "d-00001-of-00002.bin",
        "d-00002-of-00002.bin",
        "d.bin.index.json",
    )
    for name in (*names, "notes.json", "e-00001-of-00002.ckpt"):
        (tmp_path / name).write_bytes(b"x")
    planned = pairs(tmp_path, tmp_path / "out", ".ckpt")
    assert {source.name: target.name for source, target in planned} == {
        "a.pth.tar": "a.ckpt",
        "b.v2.safetensors": "b.v2.ckpt",
        "c.th": "c.ckpt",
        "d.bin.index.json": "d.ckpt",
        "e-00001-of-00002.ckpt": "e-00001-of-00002.ckpt",  # its index is not there, which it will say
    }


def test_what_of_a_folder_is_not_converted_is_listed_by_its_reason(run_here, source: Path, tmp_path: Path):
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy(source, folder / "good.safetensors")
    make(elsewhere / "linked.safetensors")
    (folder / "link").symlink_to(elsewhere)
    (folder / "file.safetensors").symlink_to(elsewhere / "linked.safetensors")
    (folder / "gone.pth").symlink_to(elsewhere / "gone.pth")
    os.mkfifo(folder / "pipe.ckpt")
    for name in ("blob", "arrays.npz", "notes.txt"):
        (folder / name).write_bytes(b"x")
    assert left_out(folder, folder / "out") == {
        "a link to a folder, which is not followed": ["link"],
        "neither a file nor a link to one": ["gone.pth", "pipe.ckpt"],
        "not a checkpoint by its name": ["arrays.npz", "blob", "notes.txt"],
    }
    done = run_here("convert", "--all", "in", "in/out", "--no-verify", cwd=tmp_path)
    told = " ".join(done.stdout.split())
    assert "link: a link to a folder, which is not followed" in told
    assert "2 entries (gone.pth …): neither a file nor a link to one" in told
    assert "3 entries (arrays.npz …): not a checkpoint by its name" in told
    assert "2 converted, 0 done before, 0 failed" in told
    again = run_here("convert", "--all", "in", "in/out", "--no-verify", cwd=tmp_path)
    assert "0 converted, 2 done before, 0 failed" in again.stdout  # its own results are not sources


def test_a_folders_result_that_was_never_verified_is_not_done_where_verifying_is_asked_for(source: Path, tmp_path):
    planned = [(source, tmp_path / "out" / "a.ckpt")]

    def reports(*, verify: bool) -> list[Report | None]:
        return [done.report for done in convert_all(planned, Options(), verify=verify)]

    assert reports(verify=False) != [None]
    (proven,) = reports(verify=True)
    assert proven is not None and proven.parity is not None and proven.parity["passed"]
    assert reports(verify=True) == reports(verify=False) == [None]
    (tmp_path / "out" / "a.config.json").unlink()
    assert reports(verify=False) != [None]  # a configuration that is gone is written again


def test_two_files_that_would_become_one_are_refused_before_anything_is_written(tmp_path: Path):
    make(tmp_path / "in" / "a.safetensors")
    shutil.copy(tmp_path / "in" / "a.safetensors", tmp_path / "in" / "a.ckpt")
    with pytest.raises(InputError, match="would both become"):
        pairs(tmp_path / "in", tmp_path / "out", ".pth")
    with pytest.raises(InputError, match="no checkpoint to convert"):
        pairs(tmp_path / "in", tmp_path, ".pth")
    with pytest.raises(InputError, match="is not a folder"):
        pairs(tmp_path / "none", tmp_path, ".pth")


# ---- Commands


def test_the_doors_convert_their_pair_and_print_what_they_did(source: Path, tmp_path: Path):
    ckpt, facebook, timm = tmp_path / "a.ckpt", tmp_path / "b.pth", tmp_path / "c.safetensors"
    for name, start, end in (
        ("timm2ms", source, ckpt),
        ("ms2facebook", ckpt, facebook),
        ("facebook2ms", facebook, tmp_path / "d.safetensors"),
        ("ms2timm", tmp_path / "d.safetensors", timm),
    ):
        done = door(name, start, end, "--no-verify", "--report", tmp_path / "report.json")
        assert done.returncode == 0, done.stderr
        assert NAME in done.stdout
        assert "367 parameters mapped" in done.stdout
        assert f"sha256 {sha256_of(end)}" in done.stdout
        assert json.loads((tmp_path / "report.json").read_text())["target"]["sha256"] == sha256_of(end)
    before = checkpoint.read(source).tensors
    after = checkpoint.read(timm).tensors
    assert all(after[name].raw() == tensor.raw() for name, tensor in before.items())


def test_the_mindcv_doors_know_the_dialect_by_their_name(tmp_path: Path):
    ckpt = make(tmp_path / "mindcv.ckpt", "mindcv")
    done = door("mindcv2ms", ckpt, tmp_path / "a.safetensors", "--no-verify")
    assert done.returncode == 0, done.stderr
    assert "mindcv dialect: the command is for MindCV's files" in done.stdout
    assert door("ms2mindcv", tmp_path / "a.safetensors", tmp_path / "b.ckpt", "--no-verify").returncode == 0
    mine = checkpoint.read(tmp_path / "b.ckpt").tensors
    assert all(mine[name].raw() == tensor.raw() for name, tensor in checkpoint.read(ckpt).tensors.items())
    refused = door("ms2timm", tmp_path / "a.safetensors", tmp_path / "c.safetensors")
    assert refused.returncode == 2
    assert "has no network that computes" in refused.stderr
    assert "import xcit_hub.timm" in refused.stderr
    assert not (tmp_path / "c.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.ckpt", "x.ckpt"], "Cannot read none.ckpt"),
        (["broken.ckpt", "x.ckpt"], "not a whole MindSpore checkpoint"),
        (["nano.safetensors", "x.onnx"], "not a checkpoint format's"),
        (["nano.safetensors", "no/x.ckpt"], "Cannot write"),
        (["nano.safetensors", "x.ckpt", "--model", "xcit_nano"], "no XCiT architecture"),
        (["nano.safetensors", "x.ckpt", "--ema"], "no averaged"),
        (["nano.safetensors", "x.ckpt", "--dialect", "mindcv"], "contradicts"),
        (["nano.safetensors", "x.ckpt", "--num-classes", "-1"], "--num-classes"),
        (["nano.safetensors", "x.ckpt", "--dtype", "int8"], "int8"),
        (["nano.safetensors", "x.ckpt", "--to", "keras"], "keras"),
        ([".", "out", "--all", "--report", "r.json"], "report beside it"),
    ],
)
def test_every_mistake_exits_2_with_words_and_without_traceback(
    run_here, source: Path, tmp_path: Path, arguments, words
):
    shutil.copy(source, tmp_path / "nano.safetensors")
    (tmp_path / "broken.ckpt").write_bytes(b"\x0a\xff")
    done = run_here("convert", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.ckpt", "nano.safetensors"]


def test_the_folder_command_lists_failures_last_and_exits_2(run_cli, run_here, source: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    shutil.copy(source, tmp_path / "in" / "good.safetensors")
    (tmp_path / "in" / "bad.ckpt").write_bytes(b"\x0a\xff")
    for run, count in (
        (run_cli, "1 converted, 0 done before, 1 failed"),
        (run_here, "0 converted, 1 done before, 1 failed"),
    ):
        done = run("convert", "--all", "in", "out", "--no-verify", cwd=tmp_path)
        assert done.returncode == 2
        assert count in done.stdout
        assert "bad.ckpt" in done.stdout.splitlines()[-3]


def test_inspect_tells_what_is_in_any_file(run_cli, run_here, source: Path, tmp_path: Path):
    done = run_cli("inspect", str(source))
    for words in (NAME, "timm", "paper: only timm", "3,053,224", "375 float32", sha256_of(source)):
        assert words in done.stdout
    silent = make(tmp_path / "silent.ckpt", "xcit-hub")
    told = json.loads(run_here("inspect", str(silent), "--json", "--tensors").stdout)
    assert told["dialect"] is None and "does not tell" in told["fault"]
    assert told["parameters"] == 3_053_224
    assert len(told["entries"]) == 367
    assert (
        told["entries"][0]["sha256"]
        == __import__("hashlib").sha256(checkpoint.read(silent).tensors["cls_token"].raw()).hexdigest()
    )
    checkpoint.write(tmp_path / "resnet.safetensors", {"conv1.weight": np.zeros((3, 3), np.float32)})
    told = json.loads(door("inspect", tmp_path / "resnet.safetensors", "--json").stdout)
    assert told["family"] is None and "not an XCiT" in told["fault"]


def test_inspect_sees_averaged_weights_and_optimizer_state(tmp_path: Path):
    tensors = checkpoint.read(make(tmp_path / "plain.ckpt", "mindcv")).tensors
    for prefix in ("ema.", "adam_m."):
        tensors = {**tensors, **{f"{prefix}{name}": tensors[name] for name in parameter_shapes(architecture(NAME))}}
    checkpoint.write(tmp_path / "train.ckpt", tensors)
    told = json.loads(door("inspect", tmp_path / "train.ckpt", "--json").stdout)
    assert (told["averaged"], told["optimizer"], told["dialect"]) == (True, True, "mindcv")


@pytest.mark.parametrize("name", ["timm2ms", "facebook2ms", "mindcv2ms", "ms2timm", "ms2facebook", "ms2mindcv"])
def test_the_doors_run_as_files_too(name: str):
    import converters

    path = Path(converters.__file__).with_name(f"{name}.py")
    root = path.parent.parent
    done = subprocess.run(
        [sys.executable, str(path), "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    assert "--num-classes" in done.stdout


def test_no_module_beside_the_doors_comes_before_one_of_the_standard_library():
    import converters

    names = {path.stem for path in Path(converters.__file__).parent.iterdir()}
    assert not names & sys.stdlib_module_names


def test_the_three_ways_to_convert_are_one_function():
    import xcit_hub
    from xcit_hub.cli import convert as command

    assert xcit_hub.convert is convert
    assert command.convert_file is convert_file


# ---- What is not loaded


def test_a_conversion_loads_no_framework(source: Path, tmp_path: Path):
    code = (
        "import sys; from xcit_hub import convert\n"
        f"convert({str(source)!r}, {str(tmp_path / 'x.ckpt')!r}, verify=False)\n"
        f"convert({str(tmp_path / 'x.ckpt')!r}, {str(tmp_path / 'y.safetensors')!r}, to='timm', verify=False)\n"
        "print(sorted({'mindspore', 'torch', 'timm', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
