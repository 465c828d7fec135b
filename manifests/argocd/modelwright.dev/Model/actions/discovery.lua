-- A manual rollback needs a version that has served before.
local status = obj.status or {}
local serving = status.serving or {}
local disabled = true
for _, entry in ipairs(status.history or {}) do
  if entry.version ~= serving.version then
    disabled = false
  end
end
return {rollback = {disabled = disabled}}
