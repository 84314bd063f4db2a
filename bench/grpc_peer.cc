// noop.proto on Debian's gRPC C++ with its callback API, which gRPC's own guide recommends for speed. Prints its port.
#include <cstdio>
#include <string>

#include <grpcpp/grpcpp.h>

#include "noop.grpc.pb.h"

class Service final : public noop::Noop::CallbackService {
    grpc::ServerUnaryReactor *Say(grpc::CallbackServerContext *context, const noop::Text *q, noop::Text *a) override
    {
        a->set_text(q->text());
        auto *reactor = context->DefaultReactor();
        reactor->Finish(grpc::Status::OK);
        return reactor;
    }
};

int main()
{
    int port = 0;
    Service service;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    auto server = builder.BuildAndStart();
    if (!server)
        return 1;
    std::printf("%d\n", port);
    std::fflush(stdout);
    server->Wait();
}
