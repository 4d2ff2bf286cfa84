"""What an extraction needs: what is extracted, its network, its plan."""
