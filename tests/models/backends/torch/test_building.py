"""Test that a network may keep tensors anywhere, and that what no file holds is found."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from batchscore.errors import FunctionError, ModelError
from batchscore.models.backends.torch.load import load_network
from tests.factory import NET, STATE, published, run_cli, write_job, write_model
from tests.models.backends.torch.networks import call, make_model, score, scores_of_torch

# A network that multiplies its inputs by 1 and 2, which it keeps in various places.
KEEPING = """
import dataclasses
import functools
import torch

TABLE = None

@functools.cache
def table():
    return torch.arange(1.0, 3.0)

@dataclasses.dataclass
class Scale:
    numbers: torch.Tensor

def times(x, by):
    return x * by

class Net(torch.nn.Module):
    kept = None

    def __init__(self):
        global TABLE
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        numbers = torch.arange(1.0, 3.0)
        KEEP

    def forward(self, x):
        return self.linear(SCALED)
"""
PLACES = {
    "attribute": ("self.scale = numbers", "x * self.scale"),
    "list": ("self.scale = [numbers]", "x * self.scale[0]"),
    "dict": ("self.scale = {'by': {'two': numbers}}", "x * self.scale['by']['two']"),
    "tuple": ("self.scale = (numbers, 1)", "x * self.scale[0]"),
    "closure": ("self.scale = lambda x: x * numbers", "self.scale(x)"),
    "partial": ("self.scale = functools.partial(times, by=numbers)", "self.scale(x)"),
    "dataclass": ("self.scale = Scale(numbers)", "x * self.scale.numbers"),
    "class attribute": ("Net.kept = numbers", "x * self.kept"),
    "class attribute, once": (
        "Net.kept = numbers if Net.kept is None else Net.kept",
        "x * self.kept",
    ),
    "global, once": ("TABLE = numbers if TABLE is None else TABLE", "x * TABLE"),
    "cache": ("table()", "x * table()"),
    "buffer": ("self.register_buffer('scale', numbers, persistent=False)", "x * self.scale"),
    "numbers": ("self.scale = numbers.tolist()", "x * torch.tensor(self.scale)"),
    "seeded": ("torch.manual_seed(3); self.scale = [torch.rand(2)]", "x * self.scale[0]"),
    "weights in a list": ("self.held = [self.linear.weight]", "x * self.held[0]"),
    "a view of weights": ("self.held = self.linear.weight.detach()[0]", "x * self.held"),
}


def keeping(keep: str, scaled: str) -> str:
    """Return a network that keeps something in its constructor, and uses it."""
    return KEEPING.replace("KEEP", keep).replace("SCALED", scaled)


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "scaled"), PLACES.values(), ids=PLACES.keys())
def test_tensors_may_be_kept_anywhere(tmp_path: Path, keep: str, scaled: str) -> None:
    """Scores are torch's own, on first and second loading and from a second thread."""
    net = keeping(keep, scaled)
    model, expected = make_model(tmp_path, net), scores_of_torch(net, STATE)
    network = load_network(model, "cpu", prove=True)
    assert score(model) == expected
    assert network.threads(2) == 2
    with ThreadPoolExecutor(2) as pool:
        assert [call(network), *pool.map(call, [network] * 4)] == [expected] * 5


@pytest.mark.slow
def test_workers_keep_tensors_outside_of_buffers(tmp_path: Path) -> None:
    """A run with two workers scores with a tensor in a list as torch does."""
    job = write_job(tmp_path, {"postprocess": None})
    net = keeping("self.scale = [numbers]", "x * self.scale[0]")
    net = net.replace("self.linear(x * self.scale[0])", "self.linear(x * self.scale[0])[:, 0]")
    write_model(tmp_path / "model", net)
    done = run_cli("run", job, "--set", "runtime.workers=2")
    assert done.exit_code == 0, done.output
    table = published(tmp_path / "out")
    x = torch.stack([torch.tensor(table[name].to_pylist()) for name in ("a", "b")], 1)
    expected = scores_of_torch(net, STATE, x.float())
    assert torch.allclose(torch.tensor(table["logit"].to_pylist()), torch.tensor(expected))


BODIES = {
    "weight_norm": "nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))",
    "weight_norm, old": "nn.utils.weight_norm(nn.Linear(2, 2))",
    "spectral_norm": "nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2))",
    "spectral_norm, old": "nn.utils.spectral_norm(nn.Linear(2, 2))",
    "orthogonal": "nn.utils.parametrizations.orthogonal(nn.Linear(2, 2))",
    "pruned": "nn.utils.prune.random_unstructured(nn.Linear(2, 2), 'weight', 0.5)",
    "norms": "nn.Sequential(nn.BatchNorm1d(2), nn.LayerNorm(2), nn.GroupNorm(1, 2))",
    "clones": "nn.TransformerEncoder(nn.TransformerEncoderLayer(2, 2, 4, batch_first=True), 2)",
    "copies": "nn.Sequential(*[copy.deepcopy(nn.Linear(2, 2)) for _ in range(2)])",
    "attention": "Attending()",
    "recurrent": "Recurrent()",
    "places": "Places()",
    "rates": "nn.Sequential(*[nn.Dropout(p.item()) for p in torch.linspace(0, 0.3, 3)])",
    "of first weights": "OfFirstWeights()",
    "seeded features": "Features()",
}
SHAPES = """
import copy
import math
import torch
import torch.nn.utils.prune
from torch import nn

class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(2, 1, batch_first=True)
    def forward(self, x):
        return self.inner(x[:, None], x[:, None], x[:, None])[0][:, 0]

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.gru = nn.LSTM(2, 2, batch_first=True), nn.GRU(2, 2, batch_first=True)
    def forward(self, x):
        return self.gru(self.lstm(x[:, None])[0])[0][:, 0]

class Places(nn.Module):
    def __init__(self):
        super().__init__()
        place, rate = torch.zeros(5, 2), torch.exp(torch.arange(0, 2, 2) * (-math.log(1e4) / 2))
        place[:, 0::2] = torch.sin(torch.arange(5.0)[:, None] * rate)
        self.register_buffer("place", place, persistent=False)
        self.start = nn.Parameter(torch.randn(1, 2) * 0.02)
    def forward(self, x):
        return x + self.start + self.place[1]

class OfFirstWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        nn.init.constant_(self.linear.weight, 3.0)
        self.scale = self.linear.weight.detach().sum() / 7
        self.small = float(self.linear.weight.detach().max())
    def forward(self, x):
        return self.linear(x) * self.scale + self.small

class Features(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.linear = nn.Linear(2, 2)
        self.table = torch.randn(2, 2)
    def forward(self, x):
        return self.linear(torch.cos(x @ self.table))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = BODY
        self.last = nn.Linear(2, 1)
    def forward(self, x):
        return self.last(self.body(x))
"""


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.slow
def test_layers_of_all_kinds_score_as_torch_does(tmp_path: Path, body: str) -> None:
    """A network that was built without first weights gives the scores of torch's own loading."""
    net, names = SHAPES.replace("BODY", body), dict[str, type[torch.nn.Module]]()
    exec(net, names)
    state = {name: each.contiguous() for name, each in names["Net"]().state_dict().items()}
    assert score(make_model(tmp_path, net, state)) == scores_of_torch(net, state)


HIDING = {
    "self.parts = [torch.nn.Linear(2, 2)]": r"parts\[0\] \(Linear\)",
    "self.parts = {'a': (torch.nn.BatchNorm1d(2),)}": r"parts\['a'\]\[0\] \(BatchNorm1d\)",
    "part = torch.nn.Linear(2, 2); self.part = lambda x: part(x)": r"part\.part \(Linear\)",
    "self.__dict__['part'] = torch.nn.Linear(2, 2)": r"part \(Linear\)",
    "self.linear.parts = [torch.nn.Sequential(torch.nn.Linear(2, 2))]": r"linear\.parts\[0\]",
    "Net.kept = torch.nn.Linear(2, 2)": r"Net\.kept \(Linear\)",
}


@pytest.mark.parametrize(("keep", "where"), HIDING.items(), ids=HIDING.values())
def test_a_module_that_torch_does_not_see_is_refused(tmp_path: Path, keep: str, where: str) -> None:
    """A module with weights in a list, dict, closure or class is named, with the remedy."""
    with pytest.raises(ModelError, match=f"{where}.*ModuleList"):
        load_network(make_model(tmp_path, keeping(keep, "x")), "cpu")


@pytest.mark.parametrize(
    "keep", ["self.parts = [torch.nn.ReLU()]", "self.parts = [self.linear]"], ids=["empty", "known"]
)
def test_a_module_in_a_list_that_holds_no_weights_of_its_own_is_fine(
    tmp_path: Path, keep: str
) -> None:
    """One without weights, or one that torch knows of by another name, may be in a list."""
    net = keeping(keep, "x")
    assert score(make_model(tmp_path, net)) == scores_of_torch(net, STATE)


RANDOM = {
    "self.scale = [torch.rand(2)]": ("self.scale[0]", r"scale\[0\]"),
    "self.register_buffer('scale', torch.randn(2), persistent=False)": ("self.scale", "scale"),
    "self.scale = torch.empty(2).uniform_()": ("self.scale", "scale"),
    "self.scale = Scale(torch.nn.init.normal_(torch.empty(2)))": (
        "self.scale.numbers",
        r"scale\.numbers",
    ),
    "import numpy; self.scale = numpy.random.default_rng().random(2)": (
        "torch.tensor(self.scale).float()",
        "scale",
    ),
    "Net.kept = torch.rand(2)": ("self.kept", r"Net\.kept"),
    "TABLE = torch.rand(2)": ("TABLE", "TABLE"),
    "import random; self.scale = random.random()": ("self.scale", "scale"),
    "self.scale = torch.rand(1).item()": ("self.scale", "scale"),
    "self.scale = {'by': [torch.rand(1).item()]}": ("self.scale['by'][0]", r"scale\['by'\]"),
    "import numpy; self.scale = numpy.random.default_rng().random()": ("self.scale", "scale"),
    "import numpy; self.scale = numpy.float32(numpy.random.rand())": ("self.scale", "scale"),
    "import uuid; self.scale = uuid.uuid4().int >> 80": ("self.scale", "scale"),
    "self.scale = torch.rand(2); torch.manual_seed(8)": ("self.scale", "scale"),
    "self.scale = torch.rand(1).item(); torch.manual_seed(8)": ("self.scale", "scale"),
    "self.scale = str(torch.rand(1).item())": ("float(self.scale)", "scale"),
    "by = torch.rand(1).item(); self.scale = lambda x: x * by": ("self.scale(1)", r"scale\.by"),
    "self.linear.scale = Scale(torch.rand(1).item())": (
        "self.linear.scale.numbers",
        r"linear\.scale\.numbers",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "used"), RANDOM.items(), ids=[*map(str, range(len(RANDOM)))])
def test_numbers_that_chance_decides_are_refused(
    tmp_path: Path, keep: str, used: tuple[str, str]
) -> None:
    """A tensor of other numbers in each process, which the weights lack, is named."""
    net = keeping(keep, f"x * {used[0]}")
    with pytest.raises(ModelError, match=rf"{used[1]} holds other numbers.*register_buffer"):
        load_network(make_model(tmp_path, net), "cpu", prove=True)


UNSEEN = {
    "another thread": "pool = futures.ThreadPoolExecutor(1); "
    "self.scale = pool.submit(lambda: float(w.sum())).result()",
    "dlpack": "import numpy; self.scale = float(numpy.from_dlpack(Capsule(to_dlpack(w))).sum())",
    "the state of chance": "self.scale = float(torch.get_rng_state()[:64].float().sum())",
}
WATCHED = """
from concurrent import futures
from torch.utils.dlpack import to_dlpack

class Capsule:
    def __init__(self, capsule): self.capsule = capsule
    def __dlpack__(self, **options): return self.capsule
    def __dlpack_device__(self): return (1, 0)

class Net("""


@pytest.mark.parametrize("init", UNSEEN.values(), ids=UNSEEN.keys())
def test_what_a_sketch_does_not_see_is_refused(tmp_path: Path, init: str) -> None:
    """A number that is computed from first weights behind torch's back gets into no score."""
    made = "torch.manual_seed(4); self.linear = torch.nn.Linear(2, 1); w = self.linear.weight.data"
    net = keeping(f"{made}; {init}", "x * self.scale").replace("class Net(", WATCHED)
    with pytest.raises(ModelError, match=r"scale holds other numbers.*register_buffer"):
        load_network(make_model(tmp_path, net), "cpu", prove=True)


IDLE = {
    "a clock": "import time; self.made = time.perf_counter_ns()",
    "an address": "self.name = {'id': id(self)}",
    "a place in torch": "self.key = hash(self.linear)",
    "words": "self.words = [*range(200_000)]",
}


@pytest.mark.parametrize("keep", IDLE.values(), ids=IDLE.keys())
def test_numbers_that_change_no_score_may_differ(tmp_path: Path, keep: str) -> None:
    """A time, an address or a count that the network does not compute with is allowed."""
    network = load_network(make_model(tmp_path, keeping(keep, "x")), "cpu", prove=True)
    assert call(network) == scores_of_torch(NET, STATE)


LOADING = {
    "by the state": "state[f'{prefix}weight'].mul_(2)",
    "by its data": "state[f'{prefix}weight'].data += 1",
    "by its memory": "state[f'{prefix}weight'].detach().numpy()[:] *= 3",
}


@pytest.mark.parametrize("seen", [True, False], ids=["of first weights", "sketched"])
@pytest.mark.parametrize("change", LOADING.values(), ids=LOADING.keys())
def test_loading_may_change_weights_in_their_place(tmp_path: Path, change: str, seen: bool) -> None:
    """A network that changes the tensors it is given gets them as the file has them each time."""
    net = f"""
import torch

class Own(torch.nn.Linear):
    def _load_from_state_dict(self, state, prefix, *args):
        with torch.no_grad():
            {change}
        super()._load_from_state_dict(state, prefix, *args)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = Own(2, 1)
        self.zero = float(self.linear.weight.detach().sum()) * 0 if {seen} else 0

    def forward(self, x):
        return self.linear(x) + self.zero
"""
    model = make_model(tmp_path, net)
    expected = scores_of_torch(net, {name: each.clone() for name, each in STATE.items()})
    for _ in range(2):
        network = load_network(model, "cpu", prove=True)
        network.threads(2)
        with ThreadPoolExecutor(2) as pool:
            assert [call(network), *pool.map(call, [network] * 2)] == [expected] * 3


def test_room_that_is_filled_later_is_no_chance(tmp_path: Path) -> None:
    """A tensor that was never set, as room for results, is not taken for a random one."""
    net = keeping("self.room = torch.empty(4096, 2)", "x + self.room[: len(x)].zero_()")
    network = load_network(make_model(tmp_path, net), "cpu", prove=True)
    assert call(network) == scores_of_torch(NET, STATE)


UNLIKE = """
class Own(torch.Tensor): pass

class Net("""
OTHER_TENSORS = {
    "sparse": ("torch.diag(numbers).to_sparse()", "torch.sparse.mm(self.scale, x.T).T"),
    "compressed": ("torch.diag(numbers).to_sparse_csr()", "(self.scale @ x.T).T"),
    "of a class of its own": ("numbers.as_subclass(Own)", "x * self.scale"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize(("kept", "scaled"), OTHER_TENSORS.values(), ids=OTHER_TENSORS.keys())
def test_tensors_that_do_not_compare_are_judged_by_scores(
    tmp_path: Path, kept: str, scaled: str
) -> None:
    """A sparse tensor, or one of another class, may be kept where it is the same each time."""
    keep = f"self.register_buffer('scale', {kept}, persistent=False)"
    net = keeping(keep, scaled).replace("class Net(", UNLIKE)
    network = load_network(make_model(tmp_path, net), "cpu", prove=True)
    assert call(network) == scores_of_torch(net, STATE)


def test_a_buffer_without_numbers_is_refused(tmp_path: Path) -> None:
    """One on torch's device `meta` that the weights file lacks can be moved to no device."""
    keep = "self.register_buffer('scale', numbers.to('meta'), persistent=False)"
    with pytest.raises(ModelError, match=r"cannot be moved to cpu .*no data.*build its buffers on"):
        load_network(make_model(tmp_path, keeping(keep, "x")), "cpu", prove=True)


@pytest.mark.parametrize("kept", ["torch.diag(numbers).to_sparse()", "numbers.as_subclass(Own)"])
def test_chance_in_tensors_that_do_not_compare_is_refused(tmp_path: Path, kept: str) -> None:
    """A sparse tensor, or one of another class, of other numbers in each process is named."""
    net = keeping(f"numbers = torch.rand(2); self.scale = {kept}", "x * self.scale.to_dense()[-1]")
    with pytest.raises(ModelError, match="scale holds other numbers"):
        load_network(make_model(tmp_path, net.replace("class Net(", UNLIKE)), "cpu", prove=True)


COMPILER = """
import json, sys
from batchscore.cli import cli
from click.testing import CliRunner

done = CliRunner().invoke(cli, ["check", sys.argv[1]])
names = ("torch._dynamo", "torch._inductor")
print(json.dumps([done.exit_code, [name for name in names if name in sys.modules]]))
"""
LAYERS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(10, 4, padding_idx=0)
        self.bag = nn.EmbeddingBag(10, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(4, 2, 8)
        self.lstm = nn.LSTM(4, 4)
        self.gru = nn.GRU(4, 4)
        self.conv = nn.Conv2d(1, 2, 3)
        self.norms = nn.ModuleList([nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.InstanceNorm1d(4)])
        self.both = nn.Bilinear(4, 4, 2)
        self.slope = nn.PReLU()
        self.start = nn.Parameter(torch.randn(1, 4) * 0.02)
        self.place = nn.Parameter(torch.zeros(1, 4))
        self.more = nn.ParameterList([nn.Parameter(torch.rand(2)) for _ in range(2)])
        for name, each in self.named_parameters():
            INITS[len(name) % len(INITS)](each if each.dim() > 1 else each.data[None])
        self.linear = nn.Linear(2, 1)

    def forward(self, x):
        return self.linear(x).squeeze(1)

INITS = (
    nn.init.trunc_normal_, nn.init.xavier_normal_, nn.init.kaiming_normal_, nn.init.ones_,
    nn.init.orthogonal_, nn.init.normal_, nn.init.uniform_, lambda t: t.data.normal_(0, 0.1),
    lambda t: nn.init.sparse_(t, 0.5) if t.dim() == 2 else t,
)
"""


@pytest.mark.slow
def test_building_a_network_leaves_the_compiler_out(tmp_path: Path) -> None:
    """A `check` of a network with embeddings and other layers imports no compiler of torch."""
    names: dict[str, type[torch.nn.Module]] = {}
    exec(LAYERS, names)
    job = write_job(tmp_path)
    write_model(tmp_path / "model", LAYERS, names["Net"]().state_dict())
    args = [sys.executable, "-c", COMPILER, str(job)]
    done = subprocess.run(args, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0, []]"


# A network whose code enters an operator in a library of torch, where its name may be only once.
ONCE = """
import torch

lib = torch.library.Library("NAME", "DEF")
lib.define("twice(Tensor x) -> Tensor")
lib.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
KEPT = []

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        CHECK

    def forward(self, x):
        return torch.ops.NAME.twice(self.linear(x)).squeeze(1)
"""
READ = "assert self.linear.weight.abs().max() < 100"


@pytest.mark.slow
@pytest.mark.parametrize("check", ["pass", READ], ids=["sketched", "for real"])
def test_code_that_cannot_be_imported_twice_is_scored_with(tmp_path: Path, check: str) -> None:
    """A network whose code can be imported only once in a process is published, and unchanged."""
    net = ONCE.replace("NAME", f"once_{len(check)}").replace("CHECK", check)
    job = write_job(tmp_path, {"postprocess": None})
    write_model(tmp_path / "model", net)
    codes = [run_cli(command, job).exit_code for command in ("check", "run")]
    again = run_cli("run", job)
    rows = published(tmp_path / "out")
    inputs = torch.tensor([*zip(*(rows[name].to_pylist() for name in "ab"), strict=True)])
    right = 2 * (inputs @ STATE["linear.weight"][0] + STATE["linear.bias"])
    assert codes == [0, 0]
    assert again.exit_code == 0
    assert "UNCHANGED" in again.output
    assert rows["logit"].to_pylist() == pytest.approx(right.tolist())


def test_code_that_cannot_be_imported_twice_keeps_no_sketch(tmp_path: Path) -> None:
    """A network is refused whose code can be imported once and keeps weights that were not set."""
    net = ONCE.replace("NAME", "once_kept").replace(
        "CHECK", f"KEPT.append(self.linear.weight.data); {READ}"
    )
    with pytest.raises(FunctionError, match="Only a single TORCH_LIBRARY"):
        load_network(make_model(tmp_path, net), "cpu")
