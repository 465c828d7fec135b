"""How what counts as evidence is measured: metrics servers, JSON, Jobs and the comparer, behind one desk."""
