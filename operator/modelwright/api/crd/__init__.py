"""Pure generators: from the pydantic types to CustomResourceDefinitions and to the field reference."""
