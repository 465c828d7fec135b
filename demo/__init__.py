"""The demo: from nothing to a real model answering on a real cluster, told step by step."""
