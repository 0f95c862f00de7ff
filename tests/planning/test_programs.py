"""What is read from a compiled program: collectives and bytes, in loops as often as they run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from adakd_jax.planning.collectives import collectives_of
from adakd_jax.planning.groups import first_group
from adakd_jax.planning.hardware import read_topology
from adakd_jax.planning.hlo import arrays_of, bytes_of, read_program, runs
from adakd_jax.planning.inputs import devices_of
from adakd_jax.planning.traffic import bytes_moved
from tests.planning.conftest import mesh_of_numbers

# Two rounds of a loop of known length, in each a gather of four, and three of one that depends on
# data; a slice of one layer is read from the stack, and written into the other.
TEXT = """\
HloModule jit_step, is_scheduled=true

%fused (param_0: f32[7,100], param_1: s32[]) -> f32[1,100] {
  %param_0 = f32[7,100]{1,0:T(8,128)} parameter(0)
  %param_1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = f32[1,100]{1,0} dynamic-slice(%param_0, %param_1, %zero), \
dynamic_slice_sizes={1,100}
}

%body (state: (s32[], f32[7,100])) -> (s32[], f32[7,100]) {
  %state = (s32[], f32[7,100]{1,0}) parameter(0)
  %index = s32[] get-tuple-element(%state), index=0
  %stack = f32[7,100]{1,0} get-tuple-element(%state), index=1
  %layer = f32[1,100]{1,0} fusion(%stack, %index), kind=kLoop, calls=%fused
  %start = (f32[1,100]{1,0}, f32[4,100]{1,0:T(8,128)S(1)}) \
all-gather-start(%layer), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
  %gathered = f32[4,100]{1,0:T(8,128)S(1)} all-gather-done(%start)
  ROOT %next = (s32[], f32[7,100]{1,0}) tuple(%index, %stack)
}

%condition (state.1: (s32[], f32[7,100])) -> pred[] {
  %state.1 = (s32[], f32[7,100]{1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (whole: f32[7,100]) -> f32[] {
  %whole = f32[7,100]{1,0} parameter(0)
  %begin = s32[] constant(0)
  %carry = (s32[], f32[7,100]{1,0}) tuple(%begin, %whole)
  %known = (s32[], f32[7,100]{1,0}) while(%carry), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"2"}}
  %unknown = (s32[], f32[7,100]{1,0}) while(%known), condition=%condition, body=%body
  %values = bf16[8]{0} constant({...})
  ROOT %sum = bf16[8]{0} all-reduce(%values), \
replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%condition
}
"""


# A counter from 1 that grows by two while it is less than a carried 8, and one that ends where the
# data says.
COUNTED = """\
%body (state: (s32[], s32[])) -> (s32[], s32[]) {
  %state = (s32[], s32[]) parameter(0)
  %index = s32[] get-tuple-element(%state), index=0
  %end = s32[] get-tuple-element(%state), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%index, %two)
  ROOT %carry = (s32[], s32[]) tuple(%next, %end)
}

%condition (state.1: (s32[], s32[])) -> pred[] {
  %state.1 = (s32[], s32[]) parameter(0)
  %index.1 = s32[] get-tuple-element(%state.1), index=0
  %end.1 = s32[] get-tuple-element(%state.1), index=1
  ROOT %less = pred[] compare(%index.1, %end.1), direction=LT
}

ENTRY %main (data: s32[]) -> (s32[], s32[]) {
  %data = s32[] parameter(0)
  %one = s32[] constant(1)
  %copied = s32[] copy(%one)
  %eight = s32[] constant(8)
  %begin = (s32[], s32[]) tuple(%copied, %eight)
  %counted = (s32[], s32[]) while(%begin), condition=%condition, body=%body
  %other = (s32[], s32[]) tuple(%copied, %data)
  ROOT %unknown = (s32[], s32[]) while(%other), condition=%condition, body=%body
}
"""


# A gather that goes on behind a product: it begins, is carried on and ends, each in a fusion of
# its own. Then another on the same channel, and a slice of what was gathered, each into faster
# memory.
BEHIND = """\
%begin (param_0: f32[1,100]) -> (f32[1,100], f32[4,100], u32[]) {
  %param_0 = f32[1,100]{1,0} parameter(0)
  %gather.0 = f32[4,100]{1,0} all-gather(%param_0), channel_id=7, replica_groups={{0,1,2,3}}
  ROOT %token = (f32[1,100]{1,0}, f32[4,100]{1,0}, u32[]{:S(2)}) custom-call(%gather.0), \
custom_call_target="AsyncCollectiveStart"
}

%carry (param_1: f32[1,100], param_2: f32[4,100], param_3: f32[50]) -> \
(f32[50], f32[1,100], f32[4,100]) {
  %param_1 = f32[1,100]{1,0} parameter(0)
  %param_2 = f32[4,100]{1,0} parameter(1)
  %param_3 = f32[50]{0} parameter(2)
  %gather.1 = f32[4,100]{1,0} all-gather(%param_1), channel_id=7, replica_groups={{0,1,2,3}}
  %product = f32[50]{0} multiply(%param_3, %param_3)
  ROOT %all = (f32[50]{0}, f32[1,100]{1,0}, f32[4,100]{1,0}) tuple(%product, %param_1, %gather.1)
}

%end (param_4: f32[1,100], param_5: f32[4,100]) -> f32[4,100] {
  %param_4 = f32[1,100]{1,0} parameter(0)
  %param_5 = f32[4,100]{1,0} parameter(1)
  %gather.2 = f32[4,100]{1,0} all-gather(%param_4), channel_id=7, replica_groups={{0,1,2,3}}
  ROOT %whole = f32[4,100]{1,0} custom-call(%param_4, %param_5, %gather.2), \
custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (part: f32[1,100], x: f32[50]) -> f32[4,100] {
  %part = f32[1,100]{1,0} parameter(0)
  %x = f32[50]{0} parameter(1)
  %started = (f32[1,100]{1,0}, f32[4,100]{1,0}, u32[]{:S(2)}) fusion(%part), calls=%begin
  %sent = f32[1,100]{1,0} get-tuple-element(%started), index=0
  %place = f32[4,100]{1,0} get-tuple-element(%started), index=1
  %carried = (f32[50]{0}, f32[1,100]{1,0}, f32[4,100]{1,0}) fusion(%sent, %place, %x), calls=%carry
  %sent.1 = f32[1,100]{1,0} get-tuple-element(%carried), index=1
  %place.1 = f32[4,100]{1,0} get-tuple-element(%carried), index=2
  %done = f32[4,100]{1,0} fusion(%sent.1, %place.1), calls=%end
  %other = f32[4,100]{1,0:S(1)} all-gather(%part), channel_id=7, replica_groups={{0,1,2,3}}
  %fetched = ((f32[4,100]{1,0}), f32[2,100]{1,0:S(1)}, u32[]{:S(2)}) slice-start(%done)
  ROOT %result = f32[4,100]{1,0} bitcast(%done)
}
"""


def test_shapes_are_measured_in_bits_and_by_where_they_are():
    assert bytes_of("(f32[2,3]{1,0:T(8,128)}, /*index=1*/ pred[4], s4[10], token[])") == 24 + 4 + 5
    assert [one.in_memory for one in arrays_of("(f32[2]{0:T(128)S(1)}, f32[2]{0})")] == [
        False,
        True,
    ]


def test_loops_multiply():
    program = read_program(TEXT)
    times = {run.instruction.name: run.times for run in runs(program, 3.0) if run.times != 1.0}
    assert times["start"] == 3.0 and program.entry == "main"
    gathers = [run.times for run in runs(program, 3.0) if run.instruction.name == "start"]
    assert gathers == [2.0, 3.0]


def test_rounds_of_loops_that_count():
    times = [
        run.times for run in runs(read_program(COUNTED), 5.0) if run.instruction.name == "next"
    ]
    assert times == [4.0, 5.0]


@pytest.mark.parametrize(
    ("attributes", "members"),
    [
        ("replica_groups={{4,5},{6,7}}, to_apply=%add", (4, 5)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}", (0, 2, 4, 6)),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0','axis_1'}, x=1", tuple(range(8))),
        (
            "replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}, y={1}",
            (0, 1, 2, 3),
        ),
        ("replica_groups=mesh['a'=4,'b'=2] {'b'}", (0, 1)),
        ("replica_groups=mesh['a'=8] {'a':(2)2}", (0, 2)),
        ("source_target_pairs={{3,3},{0,15},{1,0}}", (0, 15)),
        ("source_target_pairs={{0,0},{1,1}}", (0,)),
        ("replica_groups={}, to_apply=%add", tuple(range(8))),
    ],
)
def test_who_takes_part(attributes, members):
    assert first_group(attributes, 8) == members


def test_collectives_of_a_text():
    program = read_program(TEXT)
    gather, reduce = collectives_of(
        program, mesh_of_numbers((4, 2, 1)), read_topology("cpu:8"), 3.0
    )
    # Groups of four along the first axis: 0, 2, 4, 6.
    assert (gather.kind, gather.axes, gather.group) == ("all-gather", ("data",), 4)
    assert (gather.count, gather.size, gather.sent) == (5.0, 5 * 400, 3 * 5 * 400)
    assert (reduce.kind, reduce.axes, reduce.group) == ("all-reduce", ("data", "fsdp"), 8)
    assert (reduce.count, reduce.size, reduce.sent) == (1.0, 16, 2 * 7 / 8 * 16)


def test_bytes_of_a_text():
    # A round: the fusion reads a layer of the stack (and its number) and writes it; the gather
    # reads it, and what it gathers is not in memory. Then the sum, read and written.
    a_round = 400 + 4 + 400 + 400
    assert bytes_moved(read_program(TEXT), 3.0) == 5 * a_round + 2 * 16


def test_a_collective_behind_other_work_counts_once():
    program = read_program(BEHIND)
    [gather] = collectives_of(program, mesh_of_numbers((4, 2, 1)), read_topology("cpu:8"), 1.0)
    assert (gather.count, gather.size, gather.sent) == (2.0, 800, 3 * 800)
    # The gather reads its part and writes the whole; the product reads and writes 50 numbers; the
    # other reads its part, and the slice is read.
    assert bytes_moved(program, 1.0) == (400 + 1600) + (200 + 200) + 400 + 800


@pytest.mark.usefixtures("libtpu")
def test_collectives_of_a_compiled_scan():
    topology = read_topology("v5e:2x4")
    devices = np.array(devices_of(topology)).reshape(2, 4)
    mesh = Mesh(devices, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    split = NamedSharding(mesh, P(None, "fsdp"))
    layers, width = 5, 512

    def step(weights, x):
        def layer(x, weight):
            return jnp.tanh(x @ weight), None

        y = jax.lax.scan(layer, x, weights)[0]
        return jnp.square(y).mean()

    weights = jax.ShapeDtypeStruct((layers, width, width), jnp.bfloat16, sharding=split)
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    x = jax.ShapeDtypeStruct((64, width), jnp.bfloat16, sharding=rows)
    text = jax.jit(step).lower(weights, x).compile().as_text()
    program = read_program(text)
    found = collectives_of(program, mesh, topology, 1.0)
    gathers = [one for one in found if one.kind == "all-gather" and one.axes == ("fsdp",)]
    # Every layer's weight is gathered from its four parts, once.
    assert sum(one.size for one in gathers) == layers * width * width * 2 / 4
    assert sum(one.sent for one in gathers) == 3 * layers * width * width * 2 / 4
    sums = [one for one in found if one.kind == "all-reduce"]
    assert sums and all(set(one.axes) == {"data", "fsdp"} for one in sums)
    # At least the parts are read.
    assert bytes_moved(program, 1.0) >= layers * width * width * 2 / 4
