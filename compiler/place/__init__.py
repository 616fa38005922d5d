"""Where everything lies: tensors, slices, addresses."""
