"""Sound, subtitles, chapters and tags beside the pictures."""

import contextlib
from fractions import Fraction

import av
import numpy as np
import pytest

from vidpred_jax import video_io
from vidpred_jax.video_io import opening


def film(
  path, *, sounds=('aac',), late=0.0, seconds=1, rate=48_000, tags=(),
  text=None, chapters=(), attached=(),
):  # fmt: skip
  """A black film with tones of some codings, each in a language."""
  with contextlib.ExitStack() as stack:
    output = stack.enter_context(av.open(str(path), 'w'))
    output.metadata.update(dict(tags))
    output.set_chapters(
      [
        {'id': n, 'start': 500 * n, 'end': 500 * n + 500,
         'metadata': {'title': title}, 'time_base': Fraction(1, 1000)}
        for n, title in enumerate(chapters)
      ]
    )  # fmt: skip
    video = output.add_stream('libx264', rate=25, options={'crf': '40'})
    video.width, video.height = 32, 32
    tracks = [output.add_stream(codec, rate=rate) for codec in sounds]
    for track, language in zip(tracks, ('eng', 'fra', 'spa')):
      track.metadata['language'] = language
      track.bit_rate = 64_000
    for name, data in dict(attached).items():
      output.add_attachment(name, 'font/ttf', data)
    if text is not None:
      written = stack.enter_context(av.open(str(text)))
      shown = output.add_stream_from_template(written.streams.subtitles[0])
    black = np.zeros((32, 32, 3), np.uint8)
    for _ in range(round(25 * seconds)):
      output.mux(video.encode(av.VideoFrame.from_ndarray(black, 'rgb24')))
    output.mux(video.encode())
    if text is not None:
      for packet in written.demux():
        if packet.dts is not None:
          packet.stream = shown
          output.mux(packet)
    time = np.arange(round(rate * seconds)) / rate
    tone = (np.sin(2 * np.pi * 440 * time) * 8000).astype(np.int16)
    for track in tracks:
      frame = av.AudioFrame.from_ndarray(
        np.repeat(tone, 2)[None], format='s16', layout='stereo'
      )
      frame.sample_rate, frame.pts = rate, round(late * rate)
      frame.time_base = Fraction(1, rate)
      output.mux(track.encode(frame))
      output.mux(track.encode())
  return path


def copy(source, path, number=25, **settings):
  with video_io.Writer(path, fps=25, audio=source, **settings) as writer:
    for t in range(number):
      writer.write(np.full((32, 32, 3), 9 * t % 256, np.uint8))
  return path


def streams(path):
  with av.open(str(path), **opening.TAGS) as container:
    return [
      (s.type, s.codec_context and s.codec_context.name, s.language)
      for s in container.streams
      if s.type in ('audio', 'subtitle')
    ]


@pytest.mark.parametrize('name', ['a.mkv', 'a.mp4', 'a.mov'])
def test_every_sound_track_and_its_language(tmp_path, name):
  source = film(tmp_path / 'in.mkv', sounds=('aac', 'aac', 'ac3'))
  got = streams(copy(source, tmp_path / name))
  assert got == [
    ('audio', 'aac', 'eng'), ('audio', 'aac', 'fra'), ('audio', 'ac3', 'spa')
  ]  # fmt: skip


@pytest.mark.parametrize('name', ['a.mkv', 'a.mp4', 'a.avi'])
def test_subtitles_and_chapters_are_kept_or_named(tmp_path, name, caplog):
  text = '1\n00:00:00,000 --> 00:00:00,500\nHello\n\n'
  (tmp_path / 'a.srt').write_text(text)
  source = film(
    tmp_path / 'in.mkv', sounds=('mp3',), text=tmp_path / 'a.srt',
    chapters=('One', 'Two'),
  )  # fmt: skip
  path = copy(source, tmp_path / name)
  kinds = [kind for kind, _, _ in streams(path)]
  with av.open(str(path)) as container:
    chapters = [c['metadata'].get('title') for c in container.chapters()]
  if name == 'a.mkv':
    assert kinds == ['audio', 'subtitle'] and not caplog.text
  else:
    assert kinds[0] == 'audio' and 'subtitle' not in kinds
    assert 'leaves out' in caplog.text and 'subtitles (' in caplog.text
  assert chapters == ([] if name == 'a.avi' else ['One', 'Two'])
  assert ('2 chapters' in caplog.text) == (name == 'a.avi')


@pytest.mark.parametrize('name', ['a.mkv', 'a.mp4'])
def test_attached_files_are_kept_or_named(tmp_path, name, caplog):
  source = film(tmp_path / 'in.mkv', attached={'a.ttf': b'letters'})
  path = copy(source, tmp_path / name)
  with av.open(str(path)) as container:
    found = {s.name: s.data for s in container.streams.attachments}
  assert found == ({'a.ttf': b'letters'} if name == 'a.mkv' else {})
  assert ('leaves out' in caplog.text) == (name != 'a.mkv')
  assert name == 'a.mkv' or 'the attachment a.ttf' in caplog.text


def test_the_name_of_an_attached_file_may_be_of_another_alphabet(tmp_path):
  source = film(tmp_path / 'in.mkv', attached={'QQa.ttf': b'letters'})
  data = source.read_bytes()
  source.write_bytes(data.replace(b'QQa.ttf', b'\xe4\xf6a.ttf'))
  with av.open(str(copy(source, tmp_path / 'a.mkv'))) as container:
    (file,) = container.streams.attachments
    assert file.name.endswith('a.ttf') and file.data == b'letters'


@pytest.mark.parametrize('name', ['a.gif', 'a.y4m', 'folder'])
def test_what_has_no_room_for_companions_names_them(tmp_path, name, caplog):
  source = film(tmp_path / 'in.mkv', sounds=('mp3',), chapters=('One', 'Two'))
  copy(source, tmp_path / name)
  assert 'leaves out' in caplog.text
  assert 'sound (mp3' in caplog.text and '2 chapters' in caplog.text


@pytest.mark.parametrize(
  'late, told', [(-0.5, True), (-3, True), (-0.04, False)]
)
@pytest.mark.parametrize('codec', ['aac', 'flac'])
def test_sound_that_is_cut_off_is_told(tmp_path, caplog, codec, late, told):
  source = film(tmp_path / 'in.mkv', sounds=(codec,), late=late)
  copy(source, tmp_path / 'a.mkv')
  assert ('s of sound before its first frame' in caplog.text) == told


class TestWhatCannotBeHeld:
  @pytest.mark.parametrize(
    'codec, name, advice',
    [
      ('wmav2', 'a.mkv', '.avi'),
      ('aac', 'a.webm', '.mkv'),
      ('libopus', 'a.mov', '.mkv'),
      ('adpcm_ms', 'a.mp4', '--noaudio'),
      pytest.param(
        'adpcm_ms',
        'a.avi',
        '--noaudio',  # whose header alone can be written
        marks=pytest.mark.skipif(
          av.library_versions['libavformat'] >= (63,), reason='FFmpeg 9 can'
        ),
      ),
      ('ac3', 'a.avi', '.mkv'),  # whose times would be lost
    ],
  )
  def test_the_advice_is_another_kind(self, tmp_path, codec, name, advice):
    ends = {'wmav2': '.wmv', 'adpcm_ms': '.avi', 'ac3': '.avi'}
    end = ends.get(codec, '.mkv')
    source = film(tmp_path / f'in{end}', sounds=(codec,))
    with pytest.raises(ValueError, match='cannot hold the sound') as error:
      copy(source, tmp_path / name)
    assert advice in str(error.value)
    assert name[1:] not in str(error.value).split('; ')[1]
    assert '--noaudio' in str(error.value)

  @pytest.mark.parametrize('other', [b'apac', b'xyz1'])
  def test_a_coding_that_nobody_knows(self, tmp_path, other, caplog):
    source = film(tmp_path / 'in.mp4')
    data = source.read_bytes().replace(b'mp4a', other)
    source.write_bytes(data.replace(b'esds', b'xsds'))
    assert len(video_io.read(copy(source, tmp_path / 'a.mp4'))) == 25
    assert 'not known' in caplog.text

  @pytest.mark.parametrize('codec', ['mp3', 'ac3'])
  def test_a_start_that_avi_cannot_hold(self, tmp_path, codec):
    source = film(tmp_path / 'in.mkv', sounds=(codec,), late=0.6)
    with pytest.raises(ValueError, match=r'begins 0.\d+ s after'):
      copy(source, tmp_path / 'a.avi')
    copy(source, tmp_path / 'a.mkv')
    at_once = film(tmp_path / 'at_once.mkv', sounds=(codec,))
    assert video_io.probe(copy(at_once, tmp_path / 'a.avi')).has_audio


@pytest.mark.parametrize('codec, late', [('mp3', 0), ('pcm_s16le', -0.045)])
def test_sound_before_the_pictures_moves_none_in_avi(tmp_path, codec, late):
  source = film(tmp_path / 'in.mkv', sounds=(codec,), late=late)
  path = copy(source, tmp_path / 'a.avi')
  times = [time for time, _ in video_io.frames(path)]
  assert times == [Fraction(n, 25) for n in range(25)]
  with av.open(str(path)) as container:
    stamps = [p.pts * p.time_base for p in container.demux(audio=0) if p.size]
  assert stamps[0] == 0 and 0.9 < stamps[-1] < 1


@pytest.mark.parametrize('title', [b'\xdcm\xfcA', '日本'.encode('shift_jis')])
@pytest.mark.parametrize('name', ['a.avi', 'a.mkv', 'a.mp4', 'a.mov'])
def test_tags_in_other_alphabets(tmp_path, name, title):
  sounds = ('mp3',) if name == 'a.avi' else ('aac',)
  path = film(tmp_path / name, tags={'title': 'AAAA'}, sounds=sounds)
  path.write_bytes(path.read_bytes().replace(b'AAAA', title))
  assert len(video_io.read(path)) == 25
  for end in {'.mkv', path.suffix}:
    made = copy(path, tmp_path / f'b{end}')
    assert video_io.probe(made).has_audio
    assert title in made.read_bytes()


def test_joined_parts_keep_their_sound(tmp_path):
  part = film(tmp_path / 'a.ts', seconds=2).read_bytes()
  joined = tmp_path / 'b.ts'
  joined.write_bytes(2 * part)
  number = len(video_io.read(joined))
  path = copy(joined, tmp_path / 'b.mp4', number)
  with av.open(str(path)) as container:
    sound = container.streams.audio[0]
    times = [
      float(p.pts * sound.time_base) for p in container.demux(sound) if p.size
    ]
  assert number == 100
  assert (np.diff(times) > 0).all() and np.diff(times).max() < 0.2
  assert times[-1] == pytest.approx(4, abs=0.15)


class TestTheSameTimeTwice:
  """What a container may say of several packets, and means of none."""

  def packets(self, path, kind):
    with av.open(str(path)) as container:
      stream = container.streams.get({kind: 0})[0]
      return [
        (float(p.pts * p.time_base), float(p.duration * p.time_base), bytes(p))
        for p in container.demux(stream)
        if p.size
      ]

  def source(self, path, codec, length, ticks):
    """A film of 1 s whose sound comes in packets, stamped one by one."""
    with av.open(str(path), 'w') as output:
      video = output.add_stream('libx264', rate=25, options={'crf': '40'})
      video.width, video.height = 32, 32
      sound = output.add_stream(codec, rate=48_000)
      black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
      for _ in range(25):
        output.mux(video.encode(black))
      output.mux(video.encode())
      packets = []
      for n in range(48_000 // length):
        frame = av.AudioFrame.from_ndarray(
          np.full((1, 2 * length), n, np.int16), format='s16', layout='stereo'
        )
        frame.sample_rate, frame.pts = 48_000, n * length
        packets += sound.encode(frame)
      for n, packet in enumerate(packets):
        packet.pts = packet.dts = ticks(n)
        output.mux(packet)
    return path

  @pytest.mark.parametrize('name', ['a.mkv', 'a.mp4'])
  def test_sound_of_a_block_has_one_stamp(self, tmp_path, name):
    blocks = self.source(
      tmp_path / 'in.mkv', 'mp2', 1152, lambda n: 1152 * (n - n % 4)
    )
    before, after = (
      self.packets(p, 'audio')
      for p in (blocks, copy(blocks, tmp_path / name, trim_audio=False))
    )
    assert [x[2] for x in after] == [x[2] for x in before]
    assert len({x[0] for x in before}) == -(-len(before) // 4)
    steps = np.diff([x[0] for x in after])
    assert steps.min() > 0.02 and steps.max() < 0.03

  def test_sound_in_pieces_shorter_than_a_tick(self, tmp_path):
    short = self.source(tmp_path / 'in.mkv', 'pcm_s16le', 24, lambda n: 24 * n)
    path = copy(short, tmp_path / 'a.mkv', trim_audio=False)
    before, after = (self.packets(p, 'audio') for p in (short, path))
    assert len(before) == 2000 and after == before

  @pytest.mark.parametrize('kind', ['ass', 'srt'])
  def test_subtitles_at_the_same_time(self, tmp_path, kind):
    spans = [(100, 500), (100, 700), (100, 900), (600, 900)]
    text = tmp_path / f'a.{kind}'
    if kind == 'srt':
      text.write_text(
        ''.join(
          f'{n}\n00:00:00,{a} --> 00:00:00,{b}\nword{n}\n\n'
          for n, (a, b) in enumerate(spans, 1)
        )
      )
    else:
      columns = 'Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, '
      lines = ''.join(
        f'Dialogue: {n},0:00:00.{a // 10},0:00:00.{b // 10},Default,,0,0,0,,x\n'
        for n, (a, b) in enumerate(spans)
      )
      text.write_text(
        '[Script Info]\nScriptType: v4.00+\n[Events]\n'
        f'Format: {columns}Effect, Text\n{lines}'
      )
    source = film(tmp_path / 'in.mkv', text=text)
    path = copy(source, tmp_path / 'a.mkv')
    before, after = (self.packets(p, 'subtitles') for p in (source, path))
    assert len(before) == 4 and after == before


@pytest.mark.parametrize('last', [Fraction(1, 25), Fraction(3)])
@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.webm', 'a.gif'])
def test_the_last_frame_lasts(tmp_path, name, last):
  path = tmp_path / name
  with video_io.Writer(path, fps=25, last=last) as writer:
    for t in range(10):
      writer.write(np.full((32, 32, 3), 20 * t, np.uint8), Fraction(t, 25))
  with av.open(str(path)) as container:
    duration = container.duration / 1e6
  assert duration == pytest.approx(9 / 25 + float(last), abs=0.05)


@pytest.mark.parametrize('fps', [60, 200])
def test_a_gif_is_not_faster_than_it_can_be(tmp_path, fps):
  with pytest.raises(ValueError, match='at most 50 .*--fps=50'):
    video_io.Writer(tmp_path / 'a.gif', fps=fps)


def test_what_a_gif_cannot_show_is_named(tmp_path, caplog):
  times = [Fraction(t, 100) for t in (0, 4, 5, 8, 9, 12)]
  with video_io.Writer(tmp_path / 'a.gif', fps=25) as writer:
    for n, time in enumerate(times):
      writer.write(np.full((8, 8, 3), 40 * n, np.uint8), time)
  got = [float(t) for t, _ in video_io.frames(tmp_path / 'a.gif')]
  np.testing.assert_allclose(got, [0, 0.04, 0.08, 0.12], atol=1e-3)
  assert '2 frames' in caplog.text
