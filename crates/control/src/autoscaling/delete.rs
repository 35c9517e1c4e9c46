//! Deleting groups. A group that still has instances is there until they are gone.
//! Follows <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DeleteAutoScalingGroup.html>.

use super::find;
use crate::api::Call;
use longshore_autoscaling as asg;
use longshore_engine::auto_scaling::members;
use longshore_model::auto_scaling::{AutoScalingGroup, Size};
use longshore_wire::Fault;

pub async fn delete(call: Call, request: asg::DeleteAutoScalingGroupType) -> Result<(), Fault> {
    let asg::DeleteAutoScalingGroupType { auto_scaling_group_name: name, force_delete } = request;
    let force = force_delete.unwrap_or(false);
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = find(view, call.scope(), &name)?;
        let busy = !members(view, call.scope(), &name).is_empty();
        if !force && (busy || present.size.desired > 0) {
            let message = "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance \
                           request(s) still in the group.";
            return Err(asg::Error::ResourceInUseFault(message.to_owned()).into());
        }
        let size = Size { min: 0, max: 0, desired: 0 };
        transaction.update(&AutoScalingGroup { size, deleting: true, ..(**present).clone() });
        Ok(())
    });
    commit.await
}
