"""Jobs on finished stores: what keeps them whole."""
