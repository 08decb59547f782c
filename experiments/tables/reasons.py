"""Why the order of a table's rows is what it is: what was looked for and found.

<COLUMN|ROW> stands for the size of a number of the table, <COLUMN|ROW|OTHER>
for that of the difference of two, see `experiments.report`.
"""

REASONS = {
  'dmvfn:5': (
    'Every row begins with the blocks of the `dmvfn-film` that the '
    'package had until commit 069dd37, before it began with an optical '
    'flow; the same command begins with others now and gives other '
    'numbers. Those blocks were trained together, all seven at once; '
    'the paper trains with routing from the first step, 300 epochs '
    'long. So short a training with blocks left out does not make good '
    'what each loses without the others. STEBS is far above random '
    'routes because it keeps the blocks that matter; it gives every '
    'clip the same ones. The Gumbel-softmax has the weight 0.05 of the '
    'mean gate: with the default, 1, every gate is closed after 140 '
    'steps.'
  ),
  'dmvfn:7': (
    'With all blocks in use the spatial path helps; with routes no '
    'difference can be told. Three of six blocks are as good as all, as '
    'far as can be told. But the mean gains lie within <PSNR gain|w/o '
    'r> dB, and seeds of the demo differ by half a dB after 2200 steps '
    '(`experiments/README.md`, "The demo of DMVFN"), so that other '
    'seeds may turn this round. Here rows learn from random weights, '
    'and from the true flow of the photographs, too, without which '
    'nothing moves in so few steps.'
  ),
  'dmvfn:8': (
    'The weights are those of STEBS in `dmvfn:5`. A budget of 5.6 '
    'blocks, beta 0.8, is spent on four: probabilities are clipped at '
    "1, and what is left over does not go to the others. The paper's "
    'GFLOPs grow more and more slowly with beta, too. On frames of '
    '64x64 the time is that of what every route has; on larger ones it '
    'follows the blocks.'
  ),
  'dmvfn:9': (
    'Routing is behind here for the reason under `dmvfn:5`; by '
    'supervision no pair can be told apart. The blocks, the same as '
    'there, were trained with the deep one before, so that the rows '
    'differ in the last 200 steps alone.'
  ),
  'dmvfn:figure5': (
    'The weights are those of STEBS in `dmvfn:5`. Whatever the motion, '
    'every clip has the same route. The reasons are in '
    '`experiments/README.md`, "What DMVFN\'s router goes by".'
  ),
  'simvp:8': (
    'gSTA is the best here, too, and ViT the worst. Another seed '
    'changes its error by <MSE|gSTA|gSTA, another seed>, less than any '
    'two rows differ. It changes its SSIM by <SSIM|gSTA|gSTA, another '
    'seed>, more than some rows differ, so SSIM gives no order. '
    'ConvMixer and IncepU stand higher than in the paper, at the cost '
    'of those that mix by attention, pooling or dense layers. Likely '
    'reasons, not tested: convolutions know from the first step that '
    'neighbours belong together, and 1200 clips are less than a '
    "thousandth of the paper's 2 million; and all rows have one rate, "
    '5e-3, where the published recipes give ConvMixer 1e-2, ViT 5e-4 '
    'and the others 1e-3. At this length all pictures are still '
    'blurred: a copy of the last frame has a higher SSIM, and nearly '
    'three times the error.'
  ),
  'rvd:2': (
    'RVD has the lower CRPS, as in the paper. VD draws the same frame '
    'again and again (spread/skill): in so few steps it has learned the '
    'mean of what may come, which is why each of its samples has the '
    'higher PSNR. RVD did the same where the scale of its residual was '
    '0.2 instead of 0.02 (`experiments/README.md`, "RVD on a vortex '
    'street"). So what helps it here is likely that the uncertain part '
    'is brought to the size of the noise; VD has the scale 1. Training '
    'clips of three and of six new frames cannot be told apart after as '
    'many steps; three take two thirds of the time. The gain is of the '
    'three samples of a clip that are stored, the other columns are of '
    'eight.'
  ),
  'apr:2': (
    'The larger the patches the better, as in the paper: a patch is '
    'computed by itself, so that its border sees less, and small '
    'patches are border for the most part. The time of a frame does not '
    'follow the size, for most of it goes to the flow and the context. '
    'Patches of 128 are larger than the small frames.'
  ),
  'apr:3': (
    'No two rows differ: after 300 steps the blocks that a ratio leaves '
    'out add at most <PSNR gain|0.2 0.4 0.6 0.8> dB, while the share of '
    'blocks used differs by a tenth. Most of the time goes to the flow '
    'and the context, which no route changes. More blocks cost more '
    'time in the paper; here the row with the most blocks takes 5 % '
    'more than the one with the least.'
  ),
  'apr:4': (
    'The difference of the warped frames is better than that of the '
    'frames themselves by two standard errors, as in the paper, though '
    'by <PSNR gain|image difference> dB alone; the loss of the '
    'reconstruction, which the paper leaves behind, cannot be told from '
    'it.'
  ),
  'apr:5': (
    'The rows learn from the flow of the demo alone, with a new '
    'synthesis network, which in 300 steps reaches less than the others '
    'do with the one of the demo (`apr:2`). Concatenation is ahead by '
    '<PSNR gain|concat&conv> dB: it has more weights. That addition is '
    '<PSNR gain|no fusion> dB behind none so early says little of '
    'longer training.'
  ),
}
# Of `experiments.samplers`, which belongs to no table.
SAMPLERS = (
  'The denoiser is that of `rvd-street`, trained on to predict the '
  'noise with the network of the mean as it was: '
  '`--config.init_from=rvd-street '
  '--config.model.prediction_type=epsilon '
  "--config.optim.frozen=('mean_net/.*',) --config.steps=400 "
  '--config.schedule.peak=0.001`. The third number of a sampler is what '
  'estimates of the residual are clipped to, plus and minus '
  '(`model.clip_sample_range`); residuals have a root mean square of '
  '2.8. Clipped so, 10 to 64 steps cannot be told from 1600: no gain is '
  'two standard errors. The deterministic samplers spread more, and so '
  'are nearer to a spread over error of 1, as with weights that predict '
  'the residual (`experiments/README.md`, "RVD on a vortex street"). '
  'The rows without a third number clip where the setting is by '
  'default, at the largest possible residual, 2 / sigma = 100, which '
  'with so small a sigma is no bound: an error of the estimated noise '
  "is divided by sqrt(abar), and whole frames drift. With the paper's "
  'sigma of 2 the default is 1. So few steps are enough for weights '
  'that predict the noise, too, if estimates are kept to the size that '
  'residuals have. With the mean trained along, its error grew '
  'threefold in 75 steps, since such a loss is no use to it until the '
  'denoiser is: that is why it was left alone. What weights of a '
  'million steps need, nothing here says.'
)
