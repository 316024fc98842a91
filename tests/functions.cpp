// Reads numbers and prints sin(pi x), cos(pi x), log(|x|) and the real part of the root of x + i of each.
#include "../csrc/functions.hpp"

#include <cstdio>

int main() {
  for (double x = 0; std::scanf("%la", &x) == 1;)
    std::printf("%a %a %a %a\n", pqrst::sin_pi(x), pqrst::cos_pi(x), pqrst::natural_log(std::abs(x)),
                pqrst::square_root({x, 1}).real());
}
