"""The other side of the wire: a broker, upstream's client and conductor, and our agent, each started and ended by id."""
