// The zero-phase cascade at one SIMD level: leads side by side in the lanes of a vector, all sections at once.

// What a section has for a numerator: of a band-pass of order n the first n / 2 have both zeros at 1, the last n / 2
// both at -1, and an odd one in the middle has one of each.
enum class Zeros { low, middle, high, notch };

constexpr Zeros zeros_of(int section, int n_sections, bool is_notch) {
  if (is_notch) return Zeros::notch;
  if (section < n_sections / 2) return Zeros::low;
  return section < n_sections - n_sections / 2 ? Zeros::middle : Zeros::high;
}

// Frames from `from` through the cascade to `to`, `step` doubles onward each time; a frame holds one sample of each
// lead. Direct form I: from one output to the next it is one fused multiply-add, which is all that a single lead waits
// for. Numerators are additions only, and most processors have those beside the multiplications. delays: what went into
// each section and came out of the last (n_sections + 1 frames); of each section what its numerator remembers, and its
// output before the last.
template <int n, bool is_notch, int n_lanes>
void run(const Cascade& c, double* delays, const double* from, double* to, std::ptrdiff_t n_frames,
         std::ptrdiff_t step) {
  using Frame = Lanes<double, n_lanes>;
  Frame a1[n], a2[n], in[n + 1], kept[n], before[n];
  __builtin_memcpy(in, delays, sizeof in);
  __builtin_memcpy(kept, delays + (n + 1) * n_lanes, sizeof kept);
  __builtin_memcpy(before, delays + (2 * n + 1) * n_lanes, sizeof before);
  for (int k = 0; k < n; ++k) {
    a1[k] = all<double, n_lanes>(-c.a1[k]);
    a2[k] = all<double, n_lanes>(-c.a2[k]);
  }
  const Frame middle = all<double, n_lanes>(c.middle);
  for (std::ptrdiff_t i = 0; i < n_frames; ++i, from += step, to += step) {
    Frame x = load<Frame>(from);
    for (int k = 0; k < n; ++k) {
      const Zeros zeros = zeros_of(k, n, is_notch);
      Frame y;
      if (zeros == Zeros::low) {  // x - 2 in + the one before
        const Frame change = x - in[k];
        y = change - kept[k];
        kept[k] = change;
      } else if (zeros == Zeros::high) {  // x + 2 in + the one before
        const Frame sum = x + in[k];
        y = sum + kept[k];
        kept[k] = sum;
      } else {
        y = zeros == Zeros::middle ? x - kept[k] : fma(middle, in[k], x + kept[k]);
        kept[k] = in[k];
      }
      y = fma(a1[k], in[k + 1], fma(a2[k], before[k], y));
      before[k] = in[k + 1];
      in[k] = x;
      x = y;
    }
    in[n] = x;
    store(to, x);
  }
  __builtin_memcpy(delays, in, sizeof in);
  __builtin_memcpy(delays + (n + 1) * n_lanes, kept, sizeof kept);
  __builtin_memcpy(delays + (2 * n + 1) * n_lanes, before, sizeof before);
}

using Run = void(const Cascade&, double* delays, const double* from, double* to, std::ptrdiff_t n, std::ptrdiff_t step);

template <int n_lanes>
Run* run_of(const Cascade& c) {
  if (c.is_notch) return run<1, true, n_lanes>;
  constexpr Run* bandpass[] = {run<1, false, n_lanes>, run<2, false, n_lanes>, run<3, false, n_lanes>,
                               run<4, false, n_lanes>, run<5, false, n_lanes>, run<6, false, n_lanes>,
                               run<7, false, n_lanes>, run<8, false, n_lanes>};
  return bandpass[c.n_sections - 1];
}

constexpr int block_frames = 256;

// Up to n_lanes leads; lanes without one run along with a copy of the last.
template <int n_lanes, class In, class Out>
struct Group {
  using Frame = Lanes<double, n_lanes>;
  const Cascade& cascade;
  double gain;  // of both passes
  int n_leads;
  std::ptrdiff_t n, padding;  // samples; the extended signal has n + 2 padding
  double *head, *tail;        // the padding before and after, (padding, n_lanes)
  Run* run;
  const In* x[n_lanes];
  Out* out[n_lanes];

  PQRST_INLINE double scaled(int lead, std::ptrdiff_t i) const { return static_cast<double>(x[lead][i]) * gain; }

  // The signal turned by 180 degrees about its ends. Kept, because out may overwrite x.
  void extend() {
    for (std::ptrdiff_t i = 0; i < padding; ++i)
      for (int lead = 0; lead < n_lanes; ++lead) {
        head[i * n_lanes + lead] = 2 * scaled(lead, 0) - scaled(lead, padding - i);
        tail[i * n_lanes + lead] = 2 * scaled(lead, n - 1) - scaled(lead, n - 2 - i);
      }
  }

  // The steady state after `first` has gone in forever: the first section of a band-pass stops it.
  void start(const double* first, double* delays) const {
    const int n_sections = cascade.n_sections;
    const Frame in = load<Frame>(first);
    for (int k = 0; k < n_delays_of(n_sections); ++k) store(delays + k * n_lanes, in * cascade.level);
    store(delays, in);
    if (n_sections == 1) store(delays + 2 * n_lanes, in);
  }

  // Frames [from, to) of the extended signal, all within one of its three parts.
  void gather(std::ptrdiff_t from, std::ptrdiff_t to, double* frames) const {
    if (from < padding || from >= padding + n) {
      const double* part = from < padding ? head + from * n_lanes : tail + (from - padding - n) * n_lanes;
      for (std::ptrdiff_t i = 0; i < (to - from) * n_lanes; ++i) frames[i] = part[i];
      return;
    }
    std::ptrdiff_t i = from - padding;
    const std::ptrdiff_t stop = to - padding;
    for (; i + n_lanes <= stop; i += n_lanes, frames += n_lanes * n_lanes) {
      Lanes<In, n_lanes> rows[n_lanes];
      for (int lead = 0; lead < n_lanes; ++lead) rows[lead] = load<Lanes<In, n_lanes>>(x[lead] + i);
      transpose<In>(rows);
      for (int k = 0; k < n_lanes; ++k) store(frames + k * n_lanes, convert<double, n_lanes, In>(rows[k]) * gain);
    }
    for (; i < stop; ++i, frames += n_lanes)
      for (int lead = 0; lead < n_lanes; ++lead) frames[lead] = scaled(lead, i);
  }

  // Frames [from, to) of the extended signal back into the leads; the padding falls away.
  void scatter(std::ptrdiff_t from, std::ptrdiff_t to, const double* frames) const {
    const std::ptrdiff_t skipped = from < padding ? padding - from : 0;
    frames += skipped * n_lanes;
    std::ptrdiff_t i = from + skipped - padding;
    const std::ptrdiff_t stop = to - padding < n ? to - padding : n;
    for (; i + n_lanes <= stop; i += n_lanes, frames += n_lanes * n_lanes) {
      Lanes<Out, n_lanes> rows[n_lanes];
      for (int k = 0; k < n_lanes; ++k) rows[k] = convert<Out, n_lanes, double>(load<Frame>(frames + k * n_lanes));
      transpose<Out>(rows);
      for (int lead = 0; lead < n_leads; ++lead) store(out[lead] + i, rows[lead]);
    }
    for (; i < stop; ++i, frames += n_lanes)
      for (int lead = 0; lead < n_leads; ++lead) out[lead][i] = static_cast<Out>(frames[lead]);
  }

  // Where the block that begins at `from` ends: short of `to` and of the next part of the extended signal.
  std::ptrdiff_t block_end(std::ptrdiff_t from, std::ptrdiff_t to) const {
    std::ptrdiff_t end = from + block_frames < to ? from + block_frames : to;
    if (from < padding && end > padding) end = padding;
    if (from < padding + n && end > padding + n) end = padding + n;
    return end;
  }

  // Over frames [from, to); their outputs go to `frames` if that is wanted.
  void forward(double* delays, std::ptrdiff_t from, std::ptrdiff_t to, double* frames) const {
    alignas(64) double block[block_frames * n_lanes];
    for (std::ptrdiff_t end; from < to; from = end) {
      end = block_end(from, to);
      gather(from, end, block);
      run(cascade, delays, block, frames ? frames : block, end - from, n_lanes);
      if (frames) frames += (end - from) * n_lanes;
    }
  }

  // Over `frames`, the forward outputs [from, to), from the last to the first, and into the leads.
  void backward(double* delays, std::ptrdiff_t from, std::ptrdiff_t to, const double* frames) const {
    alignas(64) double block[block_frames * n_lanes];
    for (std::ptrdiff_t begin; to > from; to = begin) {
      begin = to - block_frames > from ? to - block_frames : from;
      const std::ptrdiff_t last = to - begin - 1;
      run(cascade, delays, frames + (begin - from + last) * n_lanes, block + last * n_lanes, to - begin, -n_lanes);
      scatter(begin, to, block);
    }
  }
};

// Both ways over up to n_lanes leads. Only `chunk_frames` of the forward pass are kept: of a longer signal the delays
// at the start of each chunk, from which it is run again when the way back gets there. So memory hardly grows with the
// signal, and the result is the same to the last bit.
template <int n_lanes, class In, class Out>
void filter_group(const Cascade& cascade, const In* const* x, Out* const* out, int n_leads, std::ptrdiff_t n,
                  double* scratch) {
  const std::ptrdiff_t n_frames = n + 2 * cascade.padding, n_chunks = (n_frames - 1) / chunk_frames + 1;
  const std::ptrdiff_t last = (n_chunks - 1) * chunk_frames;  // where the last chunk begins
  double* const frames = scratch;
  double* const head = frames + (n_chunks > 1 ? chunk_frames : n_frames) * n_lanes;
  double* const tail = head + cascade.padding * n_lanes;
  double* const checkpoints = tail + cascade.padding * n_lanes;
  const std::ptrdiff_t n_delays = n_delays_of(cascade.n_sections) * n_lanes;
  Group<n_lanes, In, Out> group{cascade, cascade.gain * cascade.gain, n_leads, n, cascade.padding, head,
                                tail,    run_of<n_lanes>(cascade),    {},      {}};
  for (int lane = 0; lane < n_lanes; ++lane) {
    group.x[lane] = x[lane < n_leads ? lane : n_leads - 1];
    group.out[lane] = out[lane < n_leads ? lane : n_leads - 1];
  }
  group.extend();

  double* delays = checkpoints;
  group.start(head, delays);
  for (std::ptrdiff_t from = 0; from < last; from += chunk_frames) {
    __builtin_memcpy(delays + n_delays, delays, static_cast<std::size_t>(n_delays) * sizeof(double));
    delays += n_delays;
    group.forward(delays, from, from + chunk_frames, nullptr);
  }
  alignas(64) double back[n_delays_of(8) * n_lanes];
  for (std::ptrdiff_t from = last; from >= 0; from -= chunk_frames, delays -= n_delays) {
    const std::ptrdiff_t to = from == last ? n_frames : from + chunk_frames;
    group.forward(delays, from, to, frames);
    if (from == last) group.start(frames + (to - from - 1) * n_lanes, back);
    group.backward(back, from, to, frames);
  }
}

// A single lead runs beside a copy of itself: it is the recursion that it waits for, and a second lane costs nothing.
template <class In, class Out>
void filter(const Cascade& cascade, const In* const* x, Out* const* out, std::ptrdiff_t n_leads, std::ptrdiff_t n,
            double* scratch) {
  constexpr int most = native<double>, half = most > 4 ? most / 2 : most;
  for (std::ptrdiff_t lead = 0; lead < n_leads; lead += most) {
    const int here = n_leads - lead < most ? static_cast<int>(n_leads - lead) : most;
    if (here > half)
      filter_group<most>(cascade, x + lead, out + lead, here, n, scratch);
    else if (here > 2)
      filter_group<half>(cascade, x + lead, out + lead, here, n, scratch);
    else
      filter_group<2>(cascade, x + lead, out + lead, here, n, scratch);
  }
}
