-- A run that a person asks for is always possible.
return {retrain = {disabled = false}}
