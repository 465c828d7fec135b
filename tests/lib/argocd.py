"""Argo CD's Lua, run as Argo CD runs it: Lua 5.1 with the base and table libraries, `require`, and time and date of os.

util/lua/lua.go of Argo CD opens no others for scripts of argocd-cm; deletion is judged before a script is asked.
"""

from __future__ import annotations

from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

Object = dict[str, Any]

_AS_ARGO_CD = """
local safe = {time = os.time, date = os.date}
getmetatable("").__index = nil
for _, name in ipairs({"string", "math", "io", "debug", "coroutine", "os", "python"}) do
  _G[name] = nil
  package.loaded[name] = nil
end
os = safe
package.loaded.os = safe
"""


def run(script: str, obj: Object) -> Any:
    """What a script gives for an object, as JSON has it."""
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    lua.execute(_AS_ARGO_CD)
    lua.globals().obj = _to(lua, obj)
    return _from(lua.execute(script))


def health(script: str, obj: Object) -> tuple[str, str]:
    """Status and message."""
    if obj["metadata"].get("deletionTimestamp"):
        return "Progressing", "Pending deletion"
    found = run(script, obj)
    return found["status"], found["message"]


def _to(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: _to(lua, member) for key, member in value.items()})
    if isinstance(value, list):
        return lua.table_from([_to(lua, member) for member in value])
    return value


def _from(value: Any) -> Any:
    if lua_type(value) != "table":
        return value
    keys = list(value.keys())
    # A table without members is an empty list: Lua can't tell, and Argo CD takes it so.
    if all(isinstance(key, int | float) for key in keys):
        return [_from(value[number]) for number in range(1, len(keys) + 1)]
    return {key: _from(value[key]) for key in keys}
