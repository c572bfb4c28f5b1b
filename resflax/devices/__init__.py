"""Devices and hosts: parallel execution, memory, and the compilation of programs."""
