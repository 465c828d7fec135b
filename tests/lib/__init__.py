"""What tests of several layers share: a client, the operator's process, a gateway played by the test."""
