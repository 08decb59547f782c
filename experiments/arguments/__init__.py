"""Arguments that several experiments take."""


def listed(parser, options, flag, known):
  """The names that `--flag=a,b` lists; ends the command if one is unknown."""
  text = getattr(options, flag)
  names = text.split(',')
  if unknown := set(names) - set(known):
    parser.error(
      f'got --{flag}={text}: {", ".join(sorted(unknown))} unknown; '
      f'expected some of {", ".join(known)}'
    )
  return names
