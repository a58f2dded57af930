"""Fused C++ operations for CPUs, compiled on the machine they run on: optional, never needed for a right result."""
