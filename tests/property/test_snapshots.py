"""Nothing but the very spec passes for what the name of a stored policy says."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelwright.api import names
from modelwright.core import policy_objects

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
SPECS = st.dictionaries(st.text(), VALUES, max_size=6)
POLICIES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", fullmatch=True)


@given(POLICIES, SPECS)
def test_a_stored_policy_is_read_again(policy: str, spec: dict[str, Any]) -> None:
    name = policy_objects.policy_object_name(policy, spec)
    assert len(name) <= names.OBJECT_NAME_MAX
    found = json.loads(json.dumps(policy_objects.build_policy_object("vision", name, spec)))
    assert policy_objects.read_policy_spec(found, name) == spec


@given(POLICIES, SPECS, VALUES)
def test_anything_else_under_its_name_is_nothing(policy: str, spec: dict[str, Any], other: Any) -> None:
    name = policy_objects.policy_object_name(policy, spec)
    same = isinstance(other, dict) and names.content_hash(other, 32) == names.content_hash(spec, 32)
    for found in (None, {}, {"data": other}, {"data": {"spec": other}}):
        expected = other if same and found == {"data": {"spec": other}} else None
        if not (isinstance(other, dict) and "spec" in other):
            assert policy_objects.read_policy_spec(found, name) == expected
