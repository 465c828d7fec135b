-- Commands that this rollout could carry out now; the operator has the last word, and says why in status.commands.
local status = obj.status or {}
local state = status.state or "Pending"
local ended = {Succeeded = true, RolledBack = true, Aborted = true, Superseded = true}
local back = state == "RollingBack" or ended[state] == true
local taken_back = state == "RolledBack" or state == "Aborted"
local paused = status.paused == true
local waits = state == "Gating" or state == "AwaitingApproval" or state == "Promoting"
local holds = obj.spec.rollback ~= nil and state == "Succeeded"
return {
  pause = {disabled = back or paused or state == "Promoting"},
  resume = {disabled = back or not (paused or status.reason == "FreezeWindow")},
  promote = {disabled = back or waits},
  abort = {disabled = back},
  retry = {disabled = not taken_back or status.retried == true},
  release = {disabled = not holds or status.released == true},
}
