"""Why the order of a table's rows is what it is: what was looked for and found.

<COLUMN|ROW> stands for the size of a number of the table, <COLUMN|ROW|OTHER>
for that of the difference of two, <each COLUMN|ROW> for the least and the
greatest of its seeds, <bound|ROW|OTHER> for half of the 95 % interval of the
difference of two; COLUMN may be `paper: ...`, a column of the paper, and ROW
`ROW@TABLE`, a row of another table; see `experiments.report`. What was measured
elsewhere stands in `experiments/README.md`, which is named.
"""

REASONS = {
  'dmvfn:5': (
    'All rows begin at random weights and learn from the true flow of '
    'the photographs, too, without which nothing moves in so few steps; '
    'the paper trains for 300 epochs. Seeds differ as much as rows: '
    'with all blocks they are <each PSNR gain|w/o routing> dB ahead of '
    'the copy. In each of the three, all blocks and STEBS are ahead of '
    'random routes, STEBS by <each PSNR gain|STEBS|Random> dB with as '
    'many blocks in the mean, which three seeds do not decide. STEBS '
    'keeps <each blocks|STEBS> of the six blocks and cannot be told '
    'from all of them; the paper has it ahead. The Gumbel-softmax ends '
    'with one block in every seed, at a penalty of 0.05 of the mean '
    'gate (the default is 1): it closes blocks before they have learned '
    'anything, and a closed one learns nothing. STEBS has a budget to '
    'spend instead. How little more blocks are worth so early: all six '
    'are ahead of that one by <each PSNR gain|w/o routing|Gumbel '
    'Softmax> dB. A router that sees frames without brightness and '
    'contrast (ours) cannot be told from the published one; it keeps '
    '<each blocks|STEBS, standardised> blocks. What routes go by is '
    'under `dmvfn:figure5`.'
  ),
  'dmvfn:7': (
    'Seeds differ by more than rows: no two rows can be told apart. The '
    'signs of the spatial path are those of the paper: with routes the '
    'path is ahead in each seed, by <each PSNR gain|DMVFN|w/o path> dB, '
    'and without routes in two of three; DMVFN with both is ahead of '
    'the row with neither in each, by <each PSNR gain|DMVFN>. Half of '
    'the blocks are as good as all, as far as can be told. Here rows '
    'learn from random weights, and from the true flow of the '
    'photographs, too, without which nothing moves in so few steps.'
  ),
  'dmvfn:8': (
    'The weights are those of `dmvfn:5`. Routes are drawn, as '
    'published, but for the row DMVFN, which takes the most probable '
    'blocks at the beta of its training, 0.83. Blocks and cost grow '
    'with beta in each seed, and in the mean more and more slowly: a '
    'block whose probability is 1 keeps it, and what is left of the '
    'budget does not go to the others, so that the 4.8 blocks of beta '
    '0.8 are spent on <each blocks|beta 0.8>, by the seed. PSNR grows '
    'in the mean of the seeds, from beta 0.3 to 0.4 by <PSNR gain|beta '
    '0.4> dB and from 0.5 to 0.8 by <PSNR gain|beta 0.8|beta 0.5>, and '
    'so levels off as in the paper; in one seed of three it also falls '
    'from one beta to the next. Beta 0.3 is behind all others, and no '
    'two other betas can be told apart, as the last three of the paper. '
    'Nor can the most probable blocks (DMVFN) be told from those drawn '
    'at beta 0.8: they differ by <PSNR gain|DMVFN|beta 0.8> +- '
    '<bound|DMVFN|beta 0.8> dB (95 % interval). Processor time grows '
    'with the blocks, in the mean of the seeds from <ms of a frame|beta '
    '0.3> to <ms of a frame|beta 0.8> ms; beta 0.4 takes more than 0.3 '
    'in each seed, by <each ms of a frame|beta 0.4|beta 0.3> ms. From '
    '0.5 on time does not grow in every seed; other programs ran beside '
    'it.'
  ),
  'dmvfn:figure5': (
    'The weights are those of `dmvfn:5`. No route depends on the '
    'motion, in none of three seeds: slow and fast clips use each block '
    'equally often, to within a few clips, and so do those of frames '
    'three and five apart. A few clips have another route than the '
    'rest. '
    'Trained again, the router chooses other blocks: the first, of '
    'scale 4, is in the route of every clip of every seed, the others '
    'are not, and the routes have <each blocks|DMVFN> blocks, with '
    'standardised frames (ours) <each blocks|DMVFN, standardised>. The '
    'rows are means over such seeds; the plot has each. There is next '
    'to nothing to gain by a route of its own for each third of the '
    'clips by motion, as the losses of all routes of the row Random '
    "show, though what there is has the sign of the paper's figure: "
    'fast clips want blocks of scale 4, slow ones blocks of scale 1. '
    'The router does not find so little. On a made-up rule a router of '
    'standardised frames does follow the motion. Both are in '
    '`experiments/README.md`, the section on what the router goes by.'
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
    'blurred: a copy of the last frame has a higher SSIM, and an error '
    'of <MSE|copy> against <MSE|gSTA> to <MSE|ViT>.'
  ),
  'rvd:2': (
    'RVD has the lower CRPS, as in the paper on the simulation and '
    'Cityscapes; on KTH and BAIR VD has it there. VD draws the same frame '
    'again and again (spread/skill): in so few steps it has learned the '
    'mean of what may come, which is why each of its samples has the '
    'higher PSNR. RVD did the same where the scale of its residual was '
    '0.2 instead of 0.02 (`experiments/README.md`, "RVD on a vortex '
    'street"). So what helps it here is likely that the uncertain part '
    'is brought to the size of the noise; VD has the scale 1. Training '
    'clips of three and of six new frames cannot be told apart after as '
    'many steps. The gain is of the '
    'three samples of a clip that are stored, the other columns are of '
    'eight.'
  ),
  'apr:2': (
    'The larger the patches the better, as in the paper: a patch is '
    'computed by itself, so that its border sees less, and small '
    'patches are border for the most part. Times of a frame differ by '
    'less than those of one network between tables (`apr:3`), so that '
    'they say nothing of the size. '
    'Patches of 128 are larger than the small frames.'
  ),
  'apr:3': (
    'No two rows can be told apart. The row with the most blocks and '
    'that with the least differ by <blocks|0.2 0.5 0.7 1.0|0.2 0.4 0.6 '
    '0.8> of three blocks, and by <PSNR gain|0.2 0.4 0.6 0.8> +- '
    '<bound|0.2 0.5 0.7 1.0|0.2 0.4 0.6 0.8> dB (95 % interval). Nor '
    'can any two times be told apart: they differ by <ms of a frame|0.2 '
    '0.5 0.7 1.0|0.2 0.4 0.6 0.8> ms at the most, and those of one '
    'network by <ms of a frame|warped difference@apr:4|0.2 0.4 0.6 0.8> '
    'ms between two tables, for 0.2 0.4 0.6 0.8 is the warped '
    'difference of `apr:4`. Most of the time goes to the flow and the '
    'context, which no route changes.'
  ),
  'apr:4': (
    'The difference of the warped frames is better than that of the '
    'frames themselves, as in the paper, though by <PSNR gain|image '
    'difference> dB alone, which another seed may turn round; the loss '
    'of the reconstruction, which the paper leaves behind, cannot be '
    'told from it.'
  ),
  'apr:5': (
    'The rows learn from the flow of the demo alone, with a new '
    'synthesis network, which in 300 steps reaches less than the others '
    'do with the one of the demo (`apr:2`). Concatenation is ahead by '
    '<PSNR gain|concat&conv> dB, likely because it has more weights. '
    'That addition is '
    '<PSNR gain|no fusion> dB behind none so early says little of '
    'longer training, or of another seed.'
  ),
  'dmvfn:9': (
    'Deep supervision is ahead of that of the last block in each of the '
    'three seeds, as in the paper, without routes by <each PSNR '
    'gain|w/o routing> dB and with routes by <each PSNR '
    'gain|DMVFN|single supervision>, which three seeds do not decide. '
    'With single supervision the router keeps more blocks in each seed, '
    '<each blocks|single supervision> against <each blocks|DMVFN>; why, '
    'was not looked into. That no routes are as good as routes or '
    'better is the order of `dmvfn:5`.'
  ),
  'dmvfn:11': (
    'Seeds differ by more than rows: against [1] alone, [4, 2, 1] gains '
    '<each PSNR gain|DMVFN [4, 2, 1]> dB and [4] <each PSNR gain|DMVFN '
    '[4]>, by the seed. Photographs move up to 2.5 pixels a frame here; '
    'the paper has motions of tens of pixels, for which it has the '
    'coarse blocks. What differs is the cost: blocks of scale 1 alone '
    'take <GFLOPs|DMVFN [1]> G, those of scale 4 alone <GFLOPs|DMVFN '
    '[4]>.'
  ),
  'apr:1': (
    'The router costs <PSNR gain|Ours(with APR)> dB and leaves '
    '<blocks|Ours(with APR)> of three blocks for a patch; in the paper '
    'it costs <paper: xiph2k PSNR|Ours(w/o APR)|Ours(with APR)> dB at '
    '2K. No gain of time can be told on frames of 64x64: times of one '
    'network differ by more between tables (`apr:3`). Most of the time '
    'goes to the flow and the context, and patches must be picked and '
    'put back. The row with APR is that of the warped '
    'difference in `apr:4`, trained again on another commit hours '
    'later: the same numbers to the last digit, clip by clip.'
  ),
  'rvd:1': (
    'One row of the paper is ours, so that there is no order to '
    'compare; `rvd:2` has other ways to train it, and `rvd:figure3` the '
    'frames of this row.'
  ),
  'rvd:figure3': (
    'CRPS grows from frame to frame, from <CRPS of frame t+1|RVD '
    '(ours)> to <CRPS of frame t+4|RVD (ours)>, so that 1 / CRPS falls '
    'along time, as in the figure. The row is that of `rvd:1`.'
  ),
  'simvp:2': (
    'The longer the training the lower the error, as in the paper; '
    'SimVPv2-S is ahead of SimVP after as many steps. So early five '
    'times the steps lower it by <MSE|SimVPv2-S|SimVPv2-S x5>, most of '
    'it the first three times. Ten times the steps, and the large '
    'model, take a quarter of an hour of one core and more: they were '
    'not run. Seconds and frames a second are of a core that other '
    'programs shared. What of the network learns late is in '
    '`experiments/README.md` (`experiments.swapped`).'
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
  'residuals have; 1600 steps unclipped were not tried. With the mean '
  'trained along, its error grew threefold in 75 steps, since such a '
  'loss is no use to it until the denoiser is: that is why it was left '
  'alone. What weights of a million steps need, nothing here says.'
)
