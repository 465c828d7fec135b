"""Documentation generators: the pages that are made from the operator's own tables, types and metrics."""
