"""What is read from programs for GPUs: asynchronous fusions, updates in place, library calls."""

import math

import pytest

from adakd_jax.planning.collectives import collectives_of
from adakd_jax.planning.hardware import read_topology
from adakd_jax.planning.hlo import elements_of, read_program
from adakd_jax.planning.products import compiled_operations
from adakd_jax.planning.roofline import roofline
from adakd_jax.planning.traffic import bytes_moved
from adakd_jax.planning.work import Operations
from tests.planning.conftest import mesh_of_numbers

# Three layers: a fusion that goes on behind others slices a weight out of the stack, a product with
# its epilogue in one kernel, and the row that it adds is written into a stack of results in place.
LAYERS = """\
%slice_weight (param_0: bf16[3,64,32], param_1: s32[]) -> bf16[1,64,32] {
  %param_0 = bf16[3,64,32]{2,1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = bf16[1,64,32]{2,1,0} dynamic-slice(%param_0, %param_1, %zero, %zero)
}

%gemm_fusion (param_2: bf16[128,64], param_3: bf16[64,32]) -> bf16[128,32] {
  %param_2 = bf16[128,64]{1,0} parameter(0)
  %param_3 = bf16[64,32]{1,0} parameter(1)
  %dot = f32[128,32]{1,0} dot(%param_2, %param_3), lhs_contracting_dims={1}, \
rhs_contracting_dims={0}
  ROOT %rounded = bf16[128,32]{1,0} convert(%dot)
}

%keep (param_4: f32[3,128,32], param_5: bf16[128,32], param_6: s32[]) -> f32[3,128,32] {
  %param_4 = f32[3,128,32]{2,1,0} parameter(0)
  %param_5 = bf16[128,32]{1,0} parameter(1)
  %param_6 = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  %wide = f32[128,32]{1,0} convert(%param_5)
  %row = f32[1,128,32]{2,1,0} bitcast(%wide)
  ROOT %kept = f32[3,128,32]{2,1,0} dynamic-update-slice(%param_4, %row, %param_6, %zero.1, \
%zero.1)
}

%body (state: (s32[], bf16[3,64,32], bf16[128,64], f32[3,128,32])) -> \
(s32[], bf16[3,64,32], bf16[128,64], f32[3,128,32]) {
  %state = (s32[], bf16[3,64,32]{2,1,0}, bf16[128,64]{1,0}, f32[3,128,32]{2,1,0}) parameter(0)
  %index = s32[] get-tuple-element(%state), index=0
  %stack = bf16[3,64,32]{2,1,0} get-tuple-element(%state), index=1
  %x = bf16[128,64]{1,0} get-tuple-element(%state), index=2
  %results = f32[3,128,32]{2,1,0} get-tuple-element(%state), index=3
  %fusion-start = ((bf16[3,64,32]{2,1,0}, s32[]), bf16[1,64,32]{2,1,0}, u32[]) \
fusion-start(%stack, %index), kind=kLoop, calls=%slice_weight
  %fusion-done = bf16[1,64,32]{2,1,0} fusion-done(%fusion-start)
  %weight = bf16[64,32]{1,0} bitcast(%fusion-done)
  %product = bf16[128,32]{1,0} fusion(%x, %weight), kind=kCustom, calls=%gemm_fusion, \
backend_config={"fusion_backend_config":{"kind":"__triton_nested_gemm_fusion"}}
  %updated = f32[3,128,32]{2,1,0} fusion(%results, %product, %index), kind=kLoop, calls=%keep
  ROOT %next = (s32[], bf16[3,64,32]{2,1,0}, bf16[128,64]{1,0}, f32[3,128,32]{2,1,0}) \
tuple(%index, %stack, %x, %updated)
}

%condition (state.1: (s32[], bf16[3,64,32], bf16[128,64], f32[3,128,32])) -> pred[] {
  %state.1 = (s32[], bf16[3,64,32]{2,1,0}, bf16[128,64]{1,0}, f32[3,128,32]{2,1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (all: (s32[], bf16[3,64,32], bf16[128,64], f32[3,128,32])) -> f32[3,128,32] {
  %all = (s32[], bf16[3,64,32]{2,1,0}, bf16[128,64]{1,0}, f32[3,128,32]{2,1,0}) parameter(0)
  %while = (s32[], bf16[3,64,32]{2,1,0}, bf16[128,64]{1,0}, f32[3,128,32]{2,1,0}) while(%all), \
condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %found = f32[3,128,32]{2,1,0} get-tuple-element(%while), index=3
}
"""

# A call of cuBLAS with its scratch space, inside of what a graph of kernels runs, and cuDNN's
# attention forward and backward: 2 rows, 4 heads of 16, 8 tokens that see those before them.
FMHA = (
    'backend_config={"operation_queue_id": "0", "cudnn_fmha_backend_config": {"mask_type": '
    '"CAUSAL", "intermediate_tensor_shape": {"dimensions": ["2", "4", "8", "8"]}, '
    '"sliding_window_length": 0}}'
)
LIBRARIES = f"""\
%command_buffer (p.0: bf16[16,32], p.1: bf16[32,64]) -> f32[16,64] {{
  %p.0 = bf16[16,32]{{1,0}} parameter(0)
  %p.1 = bf16[32,64]{{1,0}} parameter(1)
  %gemm = (f32[16,64]{{1,0}}, s8[4194304]{{0}}) custom-call(%p.0, %p.1), \
custom_call_target="__cublas$lt$matmul", backend_config={{"gemm_backend_config":{{"alpha_real":1,\
"dot_dimension_numbers":{{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}}}}
  ROOT %y = f32[16,64]{{1,0}} get-tuple-element(%gemm), index=0
}}

ENTRY %main (x: bf16[16,32], w: bf16[32,64], q: bf16[2,8,4,16], k: bf16[2,8,2,16]) -> f32[16,64] {{
  %x = bf16[16,32]{{1,0}} parameter(0)
  %w = bf16[32,64]{{1,0}} parameter(1)
  %q = bf16[2,8,4,16]{{3,2,1,0}} parameter(2)
  %k = bf16[2,8,2,16]{{3,2,1,0}} parameter(3)
  %call = f32[16,64]{{1,0}} call(%x, %w), to_apply=%command_buffer
  %fwd = (bf16[2,4,8,16]{{3,1,2,0}}, u8[0]{{0}}) custom-call(%q, %k, %k), \
custom_call_target="__cudnn$fmhaSoftmax", {FMHA}
  %bwd = (bf16[2,4,8,16]{{3,1,2,0}}, u8[0]{{0}}) custom-call(%q, %k, %k), \
custom_call_target="__cudnn$fmhaSoftmaxBackward", {FMHA}
  ROOT %same = f32[16,64]{{1,0}} bitcast(%call)
}}
"""

# A sort of two arrays at once, rows added into an embedding and put into a buffer, a conversion and
# nothing else, a statistic of two numbers, and a sum over four devices that each keep their part.
PIECES = """\
%sorted (param_0: f32[1000]) -> (f32[1000], s32[1000]) {
  %param_0 = f32[1000]{0} parameter(0)
  %places = s32[1000]{0} iota(), iota_dimension=0
  ROOT %sort = (f32[1000]{0}, s32[1000]{0}) sort(%param_0, %places), dimensions={0}
}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %both = f32[] add(%a, %b)
}

%second (c: f32[], d: f32[]) -> f32[] {
  %c = f32[] parameter(0)
  ROOT %d = f32[] parameter(1)
}

%added (param_1: f32[500,10], param_2: s32[20,1], param_3: bf16[20,10]) -> f32[500,10] {
  %param_1 = f32[500,10]{1,0} parameter(0)
  %param_2 = s32[20,1]{1,0} parameter(1)
  %param_3 = bf16[20,10]{1,0} parameter(2)
  %rows = f32[20,10]{1,0} convert(%param_3)
  ROOT %scatter = f32[500,10]{1,0} scatter(%param_1, %param_2, %rows), to_apply=%sum
}

%put (param_4: f32[500,10], param_5: s32[20,1], param_6: f32[20,10]) -> f32[500,10] {
  %param_4 = f32[500,10]{1,0} parameter(0)
  %param_5 = s32[20,1]{1,0} parameter(1)
  %param_6 = f32[20,10]{1,0} parameter(2)
  ROOT %scatter.1 = f32[500,10]{1,0} scatter(%param_4, %param_5, %param_6), to_apply=%second
}

%converted (param_7: f32[300]) -> bf16[300] {
  %param_7 = f32[300]{0} parameter(0)
  ROOT %half = bf16[300]{0} convert(%param_7)
}

%best (param_8: f32[40,50]) -> (pred[40], s32[40]) {
  %param_8 = f32[40,50]{1,0} parameter(0)
  %zero = f32[] constant(0)
  %zeros = f32[40,50]{1,0} broadcast(%zero)
  %above = pred[40,50]{1,0} compare(%param_8, %zeros), direction=GT
  %places.1 = s32[40,50]{1,0} iota(), iota_dimension=1
  %no = pred[] constant(false)
  %none = s32[] constant(0)
  ROOT %first = (pred[40]{0}, s32[40]{0}) reduce(%above, %places.1, %no, %none), dimensions={1}
}

ENTRY %main (s: f32[1000], e: f32[500,10], i: s32[20,1], g: bf16[20,10], f: f32[20,10]) -> f32[] {
  %s = f32[1000]{0} parameter(0)
  %e = f32[500,10]{1,0} parameter(1)
  %i = s32[20,1]{1,0} parameter(2)
  %g = bf16[20,10]{1,0} parameter(3)
  %f = f32[20,10]{1,0} parameter(4)
  %c = f32[300]{0} parameter(5)
  %m = f32[40,50]{1,0} parameter(6)
  %1 = (f32[1000]{0}, s32[1000]{0}) fusion(%s), kind=kCustom, calls=%sorted
  %2 = f32[500,10]{1,0} fusion(%e, %i, %g), kind=kInput, calls=%added
  %3 = f32[500,10]{1,0} fusion(%2, %i, %f), kind=kInput, calls=%put
  %4 = bf16[300]{0} fusion(%c), kind=kLoop, calls=%converted
  %5 = (pred[40]{0}, s32[40]{0}) fusion(%m), kind=kInput, calls=%best
  %6 = ((f32[500,10]{1,0}, f32[300]{0}), (f32[125,10]{1,0}, f32[75]{0})) \
reduce-scatter-start(%3, %c), replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}, to_apply=%sum
  ROOT %7 = (f32[125,10]{1,0}, f32[75]{0}) reduce-scatter-done(%6)
}
"""
PIECES_MOVED = {
    "sort": 4000 + 4000 + 4000,
    # Rows are read and written; places and rows to add are read.
    "added": 2 * 800 + 80 + 400,
    "put": 800 + 80 + 800,
    "converted": 1200 + 600,
    "best": 8000 + 40 + 160,
    "summed": (20_000 + 1200) * (1 + 1 / 4),
}


def test_tuples_in_a_tuple():
    shape = "((bf16[3,64]{1,0}, s32[]), /*index=1*/bf16[1,64]{1,0:T(8,128)S(1)}, u32[])"
    assert elements_of(shape) == [
        "(bf16[3,64]{1,0}, s32[])",
        "bf16[1,64]{1,0:T(8,128)S(1)}",
        "u32[]",
    ]
    assert elements_of("f32[2]{0}") == ["f32[2]{0}"]


def test_a_loop_over_layers():
    program = read_program(LAYERS)
    weight, rows, result = 2 * 64 * 32, 2 * 128 * 64, 2 * 128 * 32
    # Sliced out, and its number read; multiplied; kept as float32, and the number read.
    a_layer = (2 * weight + 4) + (rows + weight + result) + (result + 2 * result + 4)
    assert bytes_moved(program, 1.0) == 3 * a_layer
    assert compiled_operations(program, 1.0) == 3 * 2 * 128 * 64 * 32


def test_calls_of_libraries():
    program = read_program(LIBRARIES)
    attention = (2 + 5) * 2 * (2 * 4) * (8 * 9 / 2) * 16
    assert compiled_operations(program, 1.0) == 2 * 16 * 32 * 64 + attention
    gemm = 2 * 16 * 32 + 2 * 32 * 64 + 4 * 16 * 64  # its scratch space does not count
    query, key = 2 * 2 * 8 * 4 * 16, 2 * 2 * 8 * 2 * 16
    assert bytes_moved(program, 1.0) == gemm + 2 * (query + 2 * key + query)


def test_fusions_with_several_results_and_in_place():
    assert bytes_moved(read_program(PIECES), 1.0) == sum(PIECES_MOVED.values())


@pytest.mark.parametrize(
    ("devices", "hosts", "leaving"),
    [((2, 4, 1), 1, 0.0), ((2, 4, 1), 2, 0.0), ((1, 8, 1), 2, 1 / 4), ((1, 8, 1), 8, 1.0)],
)
def test_what_leaves_a_host_goes_over_the_network(devices, hosts, leaving):
    text = PIECES.replace("{'axis_0':(2)4}", "{'axis_0'}") if devices[1] == 8 else PIECES
    topology = read_topology(f"h100:{8 // hosts}x{hosts}")
    mesh = mesh_of_numbers(devices, hosts)
    [summed] = collectives_of(read_program(text), mesh, topology, 1.0)
    assert (summed.kind, summed.axes, summed.links) == ("reduce-scatter", ("fsdp",), 1)
    group = devices[1]
    assert (summed.count, summed.size) == (1.0, 21_200)
    assert summed.sent == pytest.approx((group - 1) / group * 21_200)
    assert summed.network == pytest.approx(leaving * summed.sent)
    times = roofline(topology.chip, 8, Operations(0.0, 0.0), 0.0, [summed])
    assert times.links == pytest.approx((1 - leaving) * summed.sent / 450e9)
    assert times.network == pytest.approx(leaving * summed.sent / 50e9)
    assert math.prod(devices) == topology.chips
