"""The paper's released code, computed fault for fault, to compare with: masks, plan, network call, loop."""
