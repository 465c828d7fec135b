"""One module for each project that is imported from; its PROVIDER is found by its being here."""
