"""Where tensors lie: slices that are full and relieved, matrices in parts, contexts of whole bursts."""

import pytest
from checkpoints import small_config
from test_end_to_end import SHIPPED

from arch.config import CONFIGS
from base.errors import TspError
from compiler.capacity import check_fit, choose_context
from compiler.frontend.files import read_model
from compiler.place.layout import Layout, Tensor, Weights
from compiler.place.placement import KEYS

ULX3S = CONFIGS["ulx3s"]
INT8 = frozenset[str]()


def test_a_full_slice_gives_away_what_is_just_large_enough():
    layout = Layout(ULX3S, layers=2)
    for name, quads, per_layer in (("a", 1000, False), ("b", 700, True), ("c", 150, True), ("d", 300, False)):
        layout.claim(name, "W1", quads, per_layer=per_layer)
    assert layout.free("W1") == 2560 - 3000
    assert [tensor.name for tensor in layout.relieve("W1", "W0", {"a", "b", "c", "d"})] == ["a"]
    assert (layout.free("W1"), layout.free("W0")) == (560, 24)
    assert layout.relieve("W1", "W0", {"b"}) == []


def test_several_small_ones_go_where_none_is_large_enough():
    layout = Layout(ULX3S, layers=1)
    for name, quads in (("a", 2000), ("b", 400), ("c", 300), ("d", 400)):
        layout.claim(name, "E2", quads)
    assert [tensor.name for tensor in layout.relieve("E2", "E0", {"b", "c", "d"})] == ["d", "c"]


def test_a_slice_that_cannot_be_relieved_is_named():
    layout = Layout(ULX3S, layers=1)
    for name, quads in (("a", 2000), ("b", 500), ("c", 100)):
        layout.claim(name, "W2", quads)
    with pytest.raises(TspError, match="c needs 100 quads of 32 bytes, but slice W2 of config ulx3s has 60 of 2560"):
        layout.relieve("W2", "W0", {"a"})


def test_quads_of_a_matrix_in_parts():
    weights = Weights((Tensor("first", "W0", 8, True, addr=100), Tensor("rest", "W1", 24, True, addr=4)))
    found = [weights.mem(2, 6), weights.mem(8, 24), weights.mem(30, 2)]
    assert [(mem.slice, mem.addr, mem.count) for mem in found] == [("W0", 102, 6), ("W1", 4, 24), ("W1", 26, 2)]
    with pytest.raises(ValueError, match=r"quads 6\.\.9 of first lie in two parts"):
        weights.mem(6, 4)
    with pytest.raises(ValueError, match="quad 32 is beyond rest"):
        weights.mem(32, 1)


def test_what_is_read_together_never_meets_in_a_slice():
    """The shipped model fills both weight slices; slice 0 takes parts of either, but of nothing both."""
    checkpoint, _ = read_model(SHIPPED)
    placement = check_fit(checkpoint.config, ULX3S, 256, INT8)
    spilled = [tensor for tensor in placement.layout.tensors if tensor.slice in ("W0", "E0")
               and tensor.name.startswith(("weights", "V cache", KEYS))]
    assert {tensor.slice for tensor in spilled} == {"W0", "E0"}
    assert not any(tensor.name.startswith(KEYS) for tensor in spilled)
    for matrix in placement.matrices.values():
        for groups in matrix.tensors.values():
            for parts in zip(*(weights.parts for weights in groups), strict=True):
                assert len({part.slice for part in parts}) == len(groups)
    for head in range(checkpoint.config.n_kv_heads):
        assert placement.v[head, 1].slice != placement.v[head, 2].slice


def test_a_shortened_context_is_whole_bursts():
    """264 positions would fit, in two buckets; 256 do in six."""
    model = small_config(dim=64, hidden_dim=172, n_layers=5, n_heads=8, n_kv_heads=4, head_dim=8, vocab_size=512,
                         seq_len=512)
    assert check_fit(model, ULX3S, 264, INT8)
    assert choose_context(model, ULX3S, None, INT8) == 256
    assert choose_context(model, ULX3S, 264, INT8) == 264
    with pytest.raises(TspError, match=r"a context of 512 does not fit: .*: use a larger config or --context 256"):
        choose_context(model, ULX3S, 512, INT8)


def test_what_no_context_would_help_is_not_told_to_shorten_it():
    model = read_model(SHIPPED)[0].config
    with pytest.raises(TspError, match="257 KiB, config tiny has 64 KiB of SRAM: use a larger config; the model fits "
                                       "--config ulx3s or wide or mega or large"):
        choose_context(model, CONFIGS["tiny"], 1, INT8)


def test_a_chip_with_one_group_spills_too():
    placement = check_fit(read_model(SHIPPED)[0].config, CONFIGS["wide"], 256, INT8)
    assert any(tensor.slice == "W0" and tensor.name.startswith("weights") for tensor in placement.layout.tensors)
