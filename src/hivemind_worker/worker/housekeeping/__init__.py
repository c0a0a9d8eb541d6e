"""Keep the machine livable: what may go, when and why; and only ever what is ours."""
