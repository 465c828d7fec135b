"""One module for each supported project; every module here is loaded and defines PROVIDER."""
