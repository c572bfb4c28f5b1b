"""scripts/benchmark.py --operations divides the time of a step among its operations."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from resflax import ResNet
from resflax.benchmark.ceilings import Ceilings
from resflax.benchmark.contender import Case
from resflax.benchmark.hlo import read_program
from resflax.benchmark.module_step import resflax_contender
from resflax.benchmark.multiply_adds import describe, multiply_adds
from resflax.benchmark.operations import (
    IDLE,
    Event,
    StepOperations,
    divide_time,
    kind_of,
    moved_bytes,
    operations_of,
    operations_table,
)
from resflax.benchmark.trace import trace
from resflax.models.summary import summarize

PROGRAM = read_program("""HloModule jit_made, is_scheduled=true

%fused (param_0.1: f32[2,8,8,4], param_1.1: f32[3,3,4,16]) -> f32[2,8,8,16] {
  %param_0.1 = f32[2,8,8,4]{3,2,1,0} parameter(0)
  %param_1.1 = f32[3,3,4,16]{3,2,1,0} parameter(1)
  %inner = f32[2,8,8,16]{3,2,1,0} convolution(%param_0.1, %param_1.1), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, metadata={op_name="jit(made)/jvp(Net)/conv" stack_frame_id=1}
  ROOT %twice = f32[2,8,8,16]{3,2,1,0} add(%inner, %inner)
}

%sliced (param_0.2: f32[100,8], param_1.2: s32[]) -> f32[1,8] {
  %param_0.2 = f32[100,8]{1,0} parameter(0)
  %param_1.2 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %part = f32[1,8]{1,0} dynamic-slice(%param_0.2, %param_1.2, %zero), dynamic_slice_sizes={1,8}
}

ENTRY %main (maps: f32[2,8,8,4]) -> f32[2,8,8,16] {
  %maps = f32[2,8,8,4]{3,2,1,0} parameter(0)
  %half = bf16[2,8,8,4]{3,2,1,0} convert(%maps)
  %kernel = f32[3,3,4,16]{3,2,1,0} constant({...})
  %grouped = f32[3,3,2,16]{3,2,1,0} constant({...})
  %gradient = f32[2,4,4,16]{3,2,1,0} constant({...})
  %empty = f32[0]{0} constant({})
  %fusion = f32[2,8,8,16]{3,2,1,0} fusion(%maps, %kernel), kind=kCustom, calls=%fused, backend_config={"fusion_config":{"kind":"__ynn_fusion"}}
  %strided = f32[2,4,4,16]{3,2,1,0} convolution(%maps, %grouped), window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, feature_group_count=2, metadata={op_name="jit(made)/transpose(jvp(Net))/branch/jvp()/conv"}
  %of_kernel = f32[4,3,3,16]{3,2,1,0} convolution(%maps, %gradient), window={size=4x4 pad=1_0x1_0 rhs_dilate=2x2}, dim_labels=f01b_i01o->f01b, metadata={op_name="jit(made)/transpose(jvp(Net))/conv"}
  %forward = (f32[2,4,4,16]{3,2,1,0}, /*index=1*/f32[2,16]{1,0}) custom-call(%kernel, %empty, %empty, /*index=3*/%maps), custom_call_target="resflax_forward_v1", operand_layout_constraints={f32[3,3,4,16]{3,2,1,0}, f32[0]{0}}, api_version=API_VERSION_TYPED_FFI, backend_config={groups = 1 : i64, stride = 2 : i64}
  %y = f32[2,4,4,16]{3,2,1,0} get-tuple-element(%forward), index=0
  %both = (f32[3,3,2,16]{3,2,1,0}, f32[0]{0}, f32[0]{0}, f32[2,8,8,4]{3,2,1,0}) custom-call(%grouped, %empty, %empty, %y, %empty, %empty, %maps), custom_call_target="resflax_backward_v12"
  %stem = (f32[3,3,4,16]{3,2,1,0}, f32[0]{0}, f32[0]{0}) custom-call(%kernel, %empty, %empty, %y, %empty, %empty, %maps), custom_call_target="resflax_backward_v1"
  %unknown = f32[5]{0} custom-call(%maps), custom_call_target="another"
  %rows = f32[32,16]{1,0} bitcast(%y)
  %weights = f32[16,10]{1,0} constant({...})
  %product = f32[32,10]{1,0} dot(%rows, %weights), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %place = s32[] constant(3)
  %table = f32[100,8]{1,0} constant({...})
  %looked_up = f32[1,8]{1,0} fusion(%table, %place), kind=kLoop, calls=%sliced
  %sum = f32[8]{0} reduce(%looked_up, %place), dimensions={0}, to_apply=%add
  ROOT %copy = f32[2,8,8,4]{3,2,1,0} copy(%maps)
}
""")  # noqa: E501

LIMITS = Ceilings(100e9, 10e9)


def instruction(name: str):
    return PROGRAM.instructions[name]


@pytest.mark.parametrize(
    ("name", "count", "kind", "shapes"),
    [
        ("fusion", 2 * 64 * 16 * 36, "convolution", "3x3: 2x8x8x4 -> 2x8x8x16"),
        ("strided", 2 * 16 * 16 * 18, "convolution", "3x3 / 2x2: 2x8x8x4 -> 2x4x4x16"),
        ("of_kernel", 2 * 16 * 16 * 36, "kernel gradient", "4x4: 2x8x8x4 -> 4x3x3x16"),
        (
            "forward",
            2 * 16 * 16 * 36,
            "custom call",
            "resflax_forward_v1 3x3: 2x8x8x4 -> 2x4x4x16",
        ),
        (
            "both",
            2 * 2 * 16 * 16 * 18,
            "custom call",
            "resflax_backward_v12 3x3: 2x8x8x4 -> 2x4x4x16",
        ),
        (
            "stem",
            2 * 16 * 16 * 36,
            "custom call",
            "resflax_backward_v1 3x3: 2x8x8x4 -> 2x4x4x16",
        ),
        ("unknown", 0, "custom call", "another 5"),
        ("product", 32 * 16 * 10, "matrix product", "32x16 x 16x10 -> 32x10"),
        ("looked_up", 0, "copy", ""),
        ("sum", 0, "reduction", ""),
        ("half", 0, "elementwise", ""),
        ("copy", 0, "copy", ""),
    ],
)
def test_instructions_are_counted_by_their_shapes(name, count, kind, shapes):
    assert multiply_adds(instruction(name), PROGRAM) == count
    assert kind_of(instruction(name), PROGRAM) == (kind, shapes)
    if shapes and instruction(name).opcode != "fusion":
        assert describe(instruction(name), PROGRAM) == shapes


def test_bytes_are_those_of_operands_and_results():
    maps = 4 * 2 * 8 * 8 * 4
    assert moved_bytes(instruction("copy"), PROGRAM) == 2 * maps
    assert moved_bytes(instruction("half"), PROGRAM) == maps * 3 / 2
    # The table has 100 rows, of which one is read; the place has 4 bytes.
    assert moved_bytes(instruction("looked_up"), PROGRAM) == 2 * 4 * 8 + 4


def test_operations_at_the_same_time_share_it():
    seconds, idle = divide_time(
        [Event("a", 0.0, 4.0), Event("b", 1.0, 3.0), Event("a", 3.5, 4.5), Event("c", 6.0, 7.0)]
    )
    assert seconds == {"a": 3.5, "b": 1.0, "c": 1.0}
    assert idle == 1.5


times = st.floats(0, 100, allow_subnormal=False)


@given(
    st.lists(
        st.builds(Event, st.sampled_from(["copy", "product", "forward", "sum"]), times, times),
        min_size=1,
    )
)
def test_shares_add_up_to_one(events):
    rows = operations_of(PROGRAM, events, 3, LIMITS)
    begin = min(event.start for event in events)
    end = max(max(event.start, event.end) for event in events)
    assert sum(row.seconds for row in rows) == pytest.approx((end - begin) / 3)
    if end - begin > 1e-3:
        assert sum(row.share for row in rows) == pytest.approx(1)
    assert sum(row.times for row in rows) == pytest.approx(len(events) / 3)


def test_rates_are_compared_with_the_limit_that_they_have():
    events = [Event("product", 0.0, 1e-6), Event("copy", 1e-6, 3e-6)]
    rows = {row.kind: row for row in operations_of(PROGRAM, events, 1, LIMITS)}
    assert rows["matrix product"].flops_per_second == pytest.approx(2 * 32 * 16 * 10 / 1e-6)
    assert rows["matrix product"].share_of_peak == pytest.approx(10.24 / 100)
    assert rows["copy"].flops_per_second is None
    assert rows["copy"].bytes_per_second == pytest.approx(4096 / 2e-6)
    assert rows["copy"].share_of_peak == pytest.approx(2.048 / 10)
    assert (rows[IDLE].share, rows[IDLE].share_of_peak) == (0, None)


def test_small_operations_are_added_up_in_the_table():
    events = [Event("fusion", 0.0, 1.0)]
    events += [Event(name, 1.0, 1.001) for name in ("forward", "stem")]
    rows = operations_of(PROGRAM, events, 1, LIMITS)
    assert len(rows) == 4
    table = operations_table(StepOperations("net", 2, "float32", 1.001, rows), LIMITS)
    assert list(table.columns[1].cells) == ["3x3: 2x8x8x4 -> 2x8x8x16", "", "2 smaller ones"]
    assert list(table.columns[2].cells) == ["1", "", "2"]


def test_a_trace_has_every_convolution_of_a_gradient():
    """With one input for each pass: XLA's own forward convolution and its two gradients."""

    def loss(x, kernel):
        y = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.sum(jnp.sin(y))

    x, kernel = jnp.ones((4, 16, 16, 24)), jnp.ones((3, 3, 24, 20))
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(x, kernel).compile()
    text = compiled.as_text()
    assert text is not None
    program = read_program(text)
    events = trace(lambda: jax.block_until_ready(compiled(x, kernel)), program)
    rows = operations_of(program, events, 1, LIMITS)
    each = 4 * 16 * 16 * 9 * 24 * 20
    work = {row.kind: row.multiply_adds for row in rows if row.multiply_adds}
    assert work == {"convolution": each, "input gradient": each, "kernel gradient": each}
    assert all(row.seconds > 0 for row in rows if row.multiply_adds)


def test_a_step_multiplies_three_times_as_often_as_the_forward_pass():
    """Except for the gradient of the pictures, which nobody needs."""
    # At odd sizes nothing is computed two positions at a time, with zeros in between.
    model, side, batch, steps = ResNet(8), 17, 4, 3
    contender = resflax_contender(Case("net", model, (side, side, 3), 10, batch, "float32"))
    assert contender.program_text is not None
    program = read_program(contender.program_text())
    events = trace(lambda: contender.steps(steps), program)
    rows = operations_of(program, events, steps, LIMITS)
    stem = side * side * 16 * 27
    counted = batch * (3 * summarize(model, 10, (side, side, 3)).macs - stem)
    assert sum(row.multiply_adds for row in rows) == pytest.approx(counted)
    assert {"copy", "elementwise", "matrix product", IDLE} <= {row.kind for row in rows}
    if not any(row.shapes.startswith("resflax_forward") for row in rows):
        kinds = {"convolution", "input gradient", "kernel gradient"}
        assert kinds <= {row.kind for row in rows}
    assert sum(row.share for row in rows) == pytest.approx(1)
