"""The API of Modelwright: types, names, conditions and reasons. Imports pydantic and the standard library only."""
