//! Reads one file from the IPFS network with a node that lives as long as the read.
