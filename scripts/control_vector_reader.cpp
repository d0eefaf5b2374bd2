// Reads a control vector with llama.cpp's own loader (what --control-vector does), for callers that speak C only.
#include <algorithm>

#include "common.h"

// Returns how many floats there are: n_embd for each of the blocks 1, 2, ...; -1 for a file that llama.cpp refuses,
// which says why on stderr. As many as fit are copied to `out`.
extern "C" long long read_control_vector(const char * path, float strength, int * n_embd, float * out, long long room) {
    const auto found = common_control_vector_load({ { strength, path } });
    *n_embd = found.n_embd;
    if (found.n_embd == -1) {
        return -1;
    }
    const auto size = static_cast<long long>(found.data.size());
    std::copy_n(found.data.begin(), std::min(size, room), out);
    return size;
}
