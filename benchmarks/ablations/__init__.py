"""Parts of the network that lost their comparison, with the interface of the part that won; configs name them."""
