"""Operations on arrays, without parameters."""
